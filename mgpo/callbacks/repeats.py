"""A run that goes on makes steps again; its loggers get none of them twice."""

from collections.abc import Iterable, Mapping
from typing import Any

import lightning as L
from lightning.pytorch.loggers import CSVLogger, Logger, TensorBoardLogger

Given = set[tuple[int, str]]  # steps, and names of curves that a logger has a value of there


def given_in(rows: Iterable[Mapping[str, Any]]) -> Given:
    """What rows of metrics.csv hold; every logger was given the same."""
    whole = (row for row in rows if str(row.get("step", "")).isdigit())
    return {(int(row["step"]), str(name)) for row in whole for name, value in row.items() if value not in ("", None)}


def spare_repeats(trainer: L.Trainer, step: int, given: Given, row: Mapping[str, Any], due: bool) -> None:
    """Have the loggers without a metrics.csv go on behind the row of a step, as that file does.

    TensorBoard is told to forget the later steps, which it gets anew. W&B and others can't forget: of what they were
    given they get nothing again.

    Args:
        trainer: Of the run.
        step: Optimiser updates at the checkpoint.
        given: What came behind the checkpoint's rows.
        row: That of the checkpoint's own step.
        due: Whether that row is one to be logged.
    """
    for logger in trainer.loggers:
        if isinstance(logger, CSVLogger):
            continue
        if isinstance(logger, TensorBoardLogger):
            _forget(logger, step + 1)
            _spare(logger, {(at, name) for at, name in given if at <= step})
        else:
            _spare(logger, given)
        if row and due:
            logger.log_metrics(dict(row), step)


def _forget(logger: TensorBoardLogger, step: int) -> None:
    """What `purge_step` does, for a writer that is open."""
    # tensorboard need not be installed
    from tensorboard.compat.proto.event_pb2 import Event, SessionLog  # pyright: ignore[reportAttributeAccessIssue]

    begun = Event(step=step, session_log=SessionLog(status=SessionLog.START))
    logger.experiment._get_file_writer().add_event(begun)


def _spare(logger: Logger, given: Given) -> None:
    log = logger.log_metrics

    def log_the_rest(metrics: Mapping[str, Any], step: int | None = None) -> None:
        if rest := {name: value for name, value in metrics.items() if (step, name) not in given}:
            log(rest, step)

    logger.log_metrics = log_the_rest  # which Lightning and the callbacks call
