"""Values that can be seen to be wrong from the command line and the files it names, before anything is imported."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from mgpo.errors import UserError
from mgpo.training.loop_settings import check_precision, check_scheduler, check_strategy
from mgpo.utils.configurations import load, options_of
from mgpo.utils.least_values import check_keys

TRAINERS = ("fit", "validate", "test", "doctor")  # commands that build one


def words_beside(args: Sequence[str]) -> list[str]:
    """The words that are neither options nor the values of any."""
    found, before = [], ""
    for arg in args:
        takes = (before.startswith("--") and "=" not in before) or before == "-c"
        if not arg.startswith("-") and not takes:
            found.append(arg)
        before = arg if arg.startswith("-") else ""
    return found


def check_words(command: str, args: Sequence[str]) -> None:
    """Raises UserError for a word that stands by itself: all that a command takes has a key."""
    if words := words_beside(args):
        raise UserError(
            f"{command} takes no word by itself, and {words[0]!r} has no key in front of it, as in --key value "
            f"(mgpo {command} --help lists the keys)"
        )


def check_rows(values: Mapping[str, Any], rows: Any) -> None:
    """Raises UserError for a row of a study that an option changes and its configuration lacks."""
    for key in values:
        parts = key.split(".")
        if isinstance(rows, Mapping) and parts[0] == "runs" and len(parts) > 1 and parts[1] not in rows:
            raise UserError(f"--{key}: the study has no row {parts[1]}; there are {', '.join(map(str, rows))}")


def given(args: Sequence[str]) -> dict[str, Any]:
    """By key the plain values of a command line."""
    return {name[2:].rstrip("+"): plain(value) for name, value in options_of(args) if name.startswith("--")}


def plain(text: str) -> Any:
    """What a text says in YAML, where it says more than itself."""
    try:
        value = load(text)
        return float(text) if isinstance(value, str) else value  # 1e-4, which YAML takes for a text
    except (ValueError, yaml.YAMLError):
        return text


def check_values(command: str, values: Mapping[str, Any]) -> None:
    """Raises UserError for a number that can't be meant, and for a checkpoint that is not there."""
    check_keys(values)
    path = values.get("ckpt_path")
    if isinstance(path, str) and path not in ("", "last") and not Path(path).exists():
        raise UserError(
            f"ckpt_path {path}: there is no such file or folder; name a checkpoint, or a run's folder such as "
            "runs/mgpo/version_0; last is the newest of this configuration"
        )
    check_scheduler(_named(values, "model.lr_scheduler"))
    if command in TRAINERS:
        check_precision(_named(values, "trainer.precision"))
        check_strategy(_named(values, "trainer.strategy"))


def _named(values: Mapping[str, Any], key: str) -> str:
    value = values.get(key)
    return str(value.get("class_path") if isinstance(value, Mapping) else value)
