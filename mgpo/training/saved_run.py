"""A run's module again, from its folder: the saved configuration says what it is made of."""

from collections.abc import Collection
from pathlib import Path
from typing import Any

import yaml

from mgpo.checkpoints.whole import FOLDER, trained
from mgpo.errors import UserError
from mgpo.utils.configurations import arguments_from, load, read_text

CONFIG = "config.yaml"


def find_run(path: Path) -> tuple[Path, Path]:
    """The configuration and the checkpoint that a run's folder, or a checkpoint in it, stands for.

    Raises UserError where one of the two is missing.
    """
    run = path if (path / CONFIG).is_file() else path.parent.parent
    if not (run / CONFIG).is_file() or (path != run and path.parent.name != FOLDER):
        raise UserError(
            f"{path} is neither a run's folder, such as runs/mgpo/version_0, nor a checkpoint in one; "
            "a checkpoint of a trainer of one's own has no configuration beside it: make the module as there, and give "
            "its policy the checkpoint as start; mgpo.load takes exports and checkpoints of transformers"
        )
    return run / CONFIG, trained(run) if path == run else path


def arguments_of(kind: type, config: Path, given: Collection[str]) -> dict[str, Any]:
    """What `kind` is made of by the `model` part of a configuration, instances and all, but for what is `given`.

    Raises UserError where the file holds no such part.
    """
    try:
        saved = {key: value for key, value in load(read_text(config))["model"].items() if key not in given}
        return arguments_from(kind, "model", saved, given)
    except (UserError, yaml.YAMLError, LookupError, TypeError, AttributeError) as error:
        raise UserError(f"{config} does not say what the run's model is made of: {error}") from None
