"""What libraries say that nobody who runs a command can act on is left out, so that the run's own words are read."""

import logging
import warnings
from typing import Any

import datasets
import transformers
from lightning.pytorch.loggers import WandbLogger

WARNINGS = (
    "Using ModelCheckpoint with manual optimization",
    "Checkpoint directory .* exists and is not empty",
    "The dirpath has changed from",
    "The number of training batches .* is smaller than the logging interval",
    "`isinstance\\(treespec, LeafSpec\\)` is deprecated",
    "The '(val|train|test)_dataloader' does not have many workers",
    "It is recommended to use `self.log",  # where there is one trainer, but an engine has begun a group of its own
)
REMARKS = (
    "Tip:", "litlogger", "litmodels", "will override existing callbacks", "TPU available", "GPU available: False",
    "Seed set to", "Restoring states from", "Restored all states", "Loaded model weights", "`weights_only` was not set",
    "`Trainer.fit` stopped: `max_", "Initializing distributed", "distributed_backend=",
    "Forcefully terminating",  # behind what the rank itself has said
)  # fmt: skip
LOCATED = warnings.formatwarning  # Python's own, with a place in the code
SPEAKERS = ("lightning", "lightning.pytorch", "lightning.fabric", "lightning.pytorch.utilities.rank_zero")


def hush() -> None:
    """Leave the terminal to what the run has to say."""
    for message in WARNINGS:
        warnings.filterwarnings("ignore", message)
    for speaker in map(logging.getLogger, SPEAKERS):
        speaker.addFilter(_worth_saying)
        for handler in speaker.handlers:  # which hear what is said below them, as filters of a logger do not
            handler.addFilter(_worth_saying)
    transformers.utils.logging.disable_progress_bar()
    datasets.disable_progress_bars()


def warn_plainly() -> None:
    """Has warnings that are for whoever started a command shown as a sentence, without a place in the code."""
    warnings.formatwarning = _as_sentence


def hush_loggers(loggers: list[Any]) -> None:
    """Takes out of Lightning's call of W&B an argument that W&B has dropped, and warns of."""
    for logger in loggers:
        if isinstance(logger, WandbLogger):
            logger._wandb_init.pop("anonymous", None)


def _as_sentence(message: Any, category: Any, *place: Any, **more: Any) -> str:
    return f"warning: {message}\n" if category is UserWarning else LOCATED(message, category, *place, **more)


def _worth_saying(record: logging.LogRecord) -> bool:
    return not any(words in record.getMessage() for words in REMARKS)
