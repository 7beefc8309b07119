"""`fit --ckpt_path last`: finding the run that the same configuration began."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import lightning as L
import yaml

from mgpo.checkpoints.loop_state import check, nothing_left
from mgpo.checkpoints.whole import FOLDER, TRAINED, load_state, newest, trained
from mgpo.errors import UserError

MORE = (
    "to go on, name its checkpoint with more trainer.max_epochs (or max_steps); for other data or settings begin a new "
    "run from its weights, with model.policy.init_args.start"
)
ASIDE = ("trainer.max_time", "trainer.enable_progress_bar", "trainer.enable_model_summary", "trainer.profiler")
SHOWN = 3  # keys in a sentence


def loggers(trainer: Mapping[str, Any]) -> list[Any]:
    """The `init_args` of a configuration's loggers.

    Raises:
        UserError: Where none is named, so that a run has no folder which could be found again.
    """
    named = trainer["logger"] if isinstance(trainer["logger"], list) else [trainer["logger"]]
    if not all(hasattr(logger, "get") and logger.get("init_args", {}).get("save_dir") for logger in named):
        raise UserError(
            "--ckpt_path last needs a trainer.logger with class_path and save_dir, as configs/mgpo.yaml has it"
        )
    return [logger["init_args"] for logger in named]


def go_into(path: Path, trainer: Mapping[str, Any]) -> None:
    """Have a configuration's loggers go on with what they have of the run whose checkpoint this is."""
    named, saved = loggers(trainer), load_state(path).get("metrics_file", {}).get("versions", [])
    here = path.parent.parent.name
    versions = list(saved) if len(saved) >= len(named) else [here] * len(named)
    if "project" not in named[0]:  # the run is looked for in the first logger's place, and may have been renamed there
        versions[0] = here
    for logger, version in zip(named, versions):
        logger["version"] = version


def finished(path: Path, trainer: L.Trainer) -> bool:
    """Whether a checkpoint leaves this trainer no step to make."""
    checkpoint = load_state(path)
    check(checkpoint)
    return nothing_left(checkpoint, -1 if trainer.max_epochs is None else trainer.max_epochs, trainer.max_steps)


def refuse_finished(path: Path, trainer: L.Trainer) -> None:
    """Raises UserError for a checkpoint from which nothing would be trained."""
    if finished(path, trainer):
        raise UserError(f"{path} has been trained to its end: no step is left; {MORE}")


def last_checkpoint(trainer: Mapping[str, Any], config: Mapping[str, Any]) -> tuple[Path, int] | None:
    """The newest complete checkpoint of a run with this very configuration, and its optimiser updates.

    Raises UserError where such a run has checkpoints, and none can be read.

    Args:
        trainer: As configured; its first logger says where runs are.
        config: As `config.yaml` of a run's folder holds it.
    """
    for path, saved in _runs(trainer):
        if not differing(saved, config) and (found := newest(path.parent / FOLDER)) is not None:
            return found
    return None


def last_trained(trainer: Mapping[str, Any], config: Mapping[str, Any]) -> Path:
    """What the newest run with this very model has learnt. Raises UserError where no run has that.

    Args:
        trainer: As configured; its first logger says where runs are.
        config: Of an evaluation.
    """
    model = {"model": config["model"]}
    for path, saved in _runs(trainer):
        if not differing({"model": saved.get("model")}, model) and any(
            (path.parent / FOLDER / name).exists() for name in TRAINED
        ):
            return trained(path.parent)
    raise UserError(
        f"--ckpt_path last: no run of this model has a checkpoint{nearest_run(trainer, model)}; name a run's folder"
    )


def nearest_run(trainer: Mapping[str, Any], config: Mapping[str, Any]) -> str:
    """Which run with a checkpoint comes nearest to a configuration, and where it differs, as a part of a sentence."""
    there = [
        (len(keys := differing({name: saved.get(name) for name in config}, config)), str(path.parent), keys)
        for path, saved in _runs(trainer)
        if any((path.parent / FOLDER).glob("*.ckpt"))
    ]
    if not there:
        return ""
    count, run, keys = min(there, key=lambda each: each[0])
    more = f" and {count - SHOWN} more" if count > SHOWN else ""
    return f" (that of {run} differs in {', '.join(keys[:SHOWN])}{more})"


def differing(saved: Any, config: Any, key: str = "") -> list[str]:
    """The keys in which a run's configuration is another than this one.

    Those that end a run or show it change nothing that it learns. What an earlier version did not know makes no
    difference as long as it is left out.
    """
    if key in ASIDE or saved == config:
        return []
    if isinstance(saved, Mapping) and isinstance(config, Mapping):
        keys = [name for name in {**config, **saved} if name in saved or config[name]]
        return [
            other
            for name in keys
            for other in differing(saved.get(name), config.get(name), f"{key}.{name}".lstrip("."))
        ]
    if isinstance(saved, list) and isinstance(config, list) and len(saved) == len(config):
        return [other for i, pair in enumerate(zip(saved, config)) for other in differing(*pair, f"{key}.{i}")]
    return [key]


def _runs(trainer: Mapping[str, Any]) -> list[tuple[Path, Mapping[str, Any]]]:
    """The configurations that runs have left where the first logger has them, the newest first, and what they hold."""
    where = loggers(trainer)[0]
    of_wandb = os.environ.get("WANDB_PROJECT", "lightning_logs")
    name = (where["project"] or of_wandb) if "project" in where else where.get("name")
    files = (Path(where["save_dir"]) / str(name)).glob("*/config.yaml")
    found = [(path, _read(path)) for path in sorted(files, key=lambda path: path.stat().st_mtime, reverse=True)]
    return [(path, saved) for path, saved in found if isinstance(saved, Mapping)]


def _read(path: Path) -> Any:
    try:
        return yaml.safe_load(path.read_bytes())
    except (OSError, yaml.YAMLError):
        return None
