"""`fit --ckpt_path last`: finding the run that the same configuration began."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import lightning as L
import yaml

from mgpo.checkpoints.loop_state import check, nothing_left
from mgpo.checkpoints.whole import FOLDER, load_state, newest
from mgpo.errors import UserError
from mgpo.utils.renamed import under_present_names

MORE = (
    "to go on, name its checkpoint with more trainer.max_epochs (or max_steps); for other data or settings begin a new "
    "run from its weights, with model.policy.init_args.start"
)


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
    versions = saved if len(saved) >= len(named) else [path.parent.parent.name] * len(named)
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
    where = loggers(trainer)[0]
    of_wandb = os.environ.get("WANDB_PROJECT", "lightning_logs")
    name = (where["project"] or of_wandb) if "project" in where else where.get("name")
    runs = Path(where["save_dir"]) / str(name)
    same = [path for path in runs.glob("*/config.yaml") if _read(path) == config]
    for path in sorted(same, key=lambda path: path.stat().st_mtime, reverse=True):
        if (found := newest(path.parent / FOLDER)) is not None:
            return found
    return None


def _read(path: Path) -> Any:
    try:
        return under_present_names(yaml.safe_load(path.read_text()))
    except (OSError, yaml.YAMLError):
        return None
