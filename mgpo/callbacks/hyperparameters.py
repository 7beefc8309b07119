"""A run's resolved configuration in its loggers, and a name there that no other run has."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import lightning as L
import yaml
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger, WandbLogger

from mgpo.data.base import split_of

HPARAMS = 1000  # characters of a value in TensorBoard's table


def log_configuration(trainer: L.Trainer, path: Path) -> None:
    """Give the configuration in a file to the run's loggers as hyperparameters, on rank 0.

    Loggers that write metrics.csv have that file beside it.
    """
    config = yaml.safe_load(path.read_bytes())
    for logger in trainer.loggers:
        if isinstance(logger, TensorBoardLogger):
            _to_tensorboard(logger, dict(flat(config)), _accuracies(trainer))
        elif not isinstance(logger, CSVLogger):
            logger.log_hyperparams(config)
        if isinstance(logger, WandbLogger):
            _name_apart(logger.experiment)


def flat(config: Any, key: str = "") -> Iterator[tuple[str, Any]]:
    """The values of a configuration under their keys of the command line, such as model.objective.kl_weight."""
    if isinstance(config, dict) and config:
        for name, value in config.items():
            yield from flat(value, f"{key}.{name}" if key else str(name))
    elif isinstance(config, list) and any(isinstance(value, dict) for value in config):
        for i, value in enumerate(config):
            yield from flat(value, f"{key}.{i}")
    else:
        yield key, config


def _to_tensorboard(logger: TensorBoardLogger, values: dict[str, Any], metrics: list[str]) -> None:
    """The table of hyperparameters, beside curves that the run has: Lightning's own call makes up one."""
    from torch.utils.tensorboard.summary import hparams  # tensorboard need not be installed

    shown = {
        key: value if isinstance(value, bool | int | float) else str(value)[:HPARAMS] for key, value in values.items()
    }
    logger.log_hyperparams(shown, metrics={})  # into hparams.yaml alone
    for summary in hparams(shown, dict.fromkeys(metrics, 0.0)):
        logger.experiment._get_file_writer().add_summary(summary)


def _accuracies(trainer: Any) -> list[str]:
    sources = getattr(getattr(trainer, "datamodule", None), "val", ())
    return [f"{split}/accuracy" for split in dict.fromkeys(map(split_of, sources))]


def _name_apart(run: Any) -> None:
    """The id behind the name, which recipes give to all their runs alike; the same again for a run that goes on."""
    if run.id and not str(run.name).endswith(run.id):
        run.name = f"{run.name or run.project}-{run.id}"
