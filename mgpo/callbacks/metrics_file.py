"""The metrics.csv of a run that may be killed at any moment and goes on without a row lost or doubled."""

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import lightning as L
from lightning.fabric.loggers.logger import rank_zero_experiment
from lightning.fabric.utilities.apply_func import convert_tensors_to_scalars
from lightning.pytorch.loggers import CSVLogger
from lightning.pytorch.loggers.csv_logs import ExperimentWriter

from mgpo.callbacks.folder import goes_on, run_folder
from mgpo.callbacks.repeats import Given, given_in, spare_repeats
from mgpo.utils.atomic_files import replaced, writing

KEY = "metrics_file"  # of a checkpoint
Row = dict[str, Any]


class MetricsFile(CSVLogger):
    """Lightning's CSVLogger, except that rows which are there stay there."""

    @property
    @rank_zero_experiment
    def experiment(self) -> "Rows":
        """The file's writer, made when it is first asked for; on ranks other than 0 a stand-in that writes nothing."""
        if self._experiment is None:
            self._experiment = Rows(self.log_dir)
        return self._experiment  # pyright: ignore[reportReturnType]


class MetricsBeside(MetricsFile):
    """The same file in a run's own folder, for a run whose loggers write none."""

    def __init__(self, trainer: L.Trainer) -> None:
        super().__init__(trainer.default_root_dir)
        self.trainer = trainer

    @property
    def log_dir(self) -> str:
        """The run's folder; some loggers know theirs only once they have begun."""
        return str(run_folder(self.trainer))


def keep_metrics(trainer: Any) -> None:
    """Have a run write metrics.csv whatever its loggers are; not where it has none, or only tries itself out."""
    if trainer.loggers and not trainer.fast_dev_run and not any(isinstance(own, CSVLogger) for own in trainer.loggers):
        trainer.loggers = [*trainer.loggers, MetricsBeside(trainer)]


class Rows(ExperimentWriter):
    """The file. New columns replace it by a whole one; rows are added at its end."""

    def __init__(self, folder: str) -> None:
        self.path = Path(folder) / self.NAME_METRICS_FILE
        with writing(self.path):
            super().__init__(folder)

    def _check_log_dir_exists(self) -> None:
        """Nothing is deleted, unlike there."""
        self.columns, rows = self._read()
        self.count = len(rows)

    def save(self) -> None:
        """Add the rows that wait to the file; where they have a new column, a whole new file takes its place."""
        new = sorted({name for row in self.metrics for name in row} - set(self.columns))
        if new:
            self._write([*self._read()[1], *self.metrics], sorted([*self.columns, *new]))
        elif self.metrics:
            with writing(self.path), self.path.open("a", newline="", encoding="utf-8") as file:
                csv.DictWriter(file, self.columns).writerows(self.metrics)
        self.count += len(self.metrics)
        self.metrics = []

    def keep(self, count: int) -> None:
        """Keep the first `count` rows of the file alone."""
        rows = self._read()[1][:count]
        if self.path.exists():
            self._write(rows, self.columns)
        self.count = len(rows)

    def behind(self, count: int) -> list[Row]:
        """The rows after the first `count`; the last may be torn."""
        return self._read()[1][count:]

    def _read(self) -> tuple[list[str], list[Row]]:
        if not self.path.is_file():
            return [], []
        with self.path.open(newline="", encoding="utf-8") as file:
            reader = csv.DictReader(file)
            return list(reader.fieldnames or ()), list(reader)

    def _write(self, rows: Sequence[Row], columns: list[str]) -> None:
        with replaced(self.path) as unfinished, unfinished.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, columns)
            writer.writeheader()
            writer.writerows(rows)
        self.columns = columns


class KeepRows(L.Callback):
    """Tells each checkpoint how many rows there are, and the row of its own step, which Lightning writes after it.

    A name that has no value in a step keeps that of an earlier one; after a new start this is the checkpoint's.

    Args:
        afresh: The run begins in this process; rows of another in its folder are dropped.
    """

    def __init__(self, afresh: bool) -> None:
        self.afresh = afresh
        self.in_step = False
        self.earlier: Row = {}

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Empties the file once, where the run begins in this process."""
        if self.afresh:
            self.afresh = False
            for file in _files(trainer):
                file.keep(0)

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        """Has training logged once a pass at least, where the data have fewer batches than lie between two rows."""
        if 0 < trainer.num_training_batches < trainer.log_every_n_steps:
            trainer.log_every_n_steps = trainer.num_training_batches

    def on_train_batch_start(self, trainer: L.Trainer, pl_module: Any, batch: Any, batch_idx: int) -> None:
        """Logs the checkpoint's values once more if they are of this epoch: Lightning keeps them no longer."""
        self.in_step = True
        if self.earlier and self.earlier.pop("epoch") == trainer.current_epoch:  # in which alone they are kept
            pl_module.log_dict(self.earlier, batch_size=1, rank_zero_only=True)
        self.earlier = {}

    def on_validation_start(self, *args: Any) -> None:
        """Takes note that the step is over: a checkpoint from here has no row of its own to carry."""
        self.in_step = False

    def on_train_epoch_end(self, *args: Any) -> None:
        """Takes note that the last step is over: a checkpoint from here has no row of its own to carry."""
        self.in_step = False

    def on_save_checkpoint(self, trainer: L.Trainer, pl_module: Any, checkpoint: dict[str, Any]) -> None:
        """Puts into the checkpoint how many rows the file has, and the values of the step that is running."""
        logs: Any = trainer._logger_connector  # only there is the row before it is written
        row = convert_tensors_to_scalars(logs.metrics["log"]) if self.in_step else {}
        checkpoint[KEY] = {"row": row, "due": logs.should_update_logs, "epoch": trainer.current_epoch, "count": 0}
        checkpoint[KEY]["versions"] = [_version(logger) for logger in trainer.loggers if trainer.is_global_zero]
        for file in _files(trainer):
            file.save()
            checkpoint[KEY]["count"] = file.count

    def on_load_checkpoint(self, trainer: L.Trainer, pl_module: Any, checkpoint: dict[str, Any]) -> None:
        """Cuts the file back to the checkpoint's rows and adds that of its step, if `fit` goes on in that folder."""
        if (saved := checkpoint.get(KEY)) is None or trainer.state.fn != "fit":
            return
        row = dict(saved["row"])
        step = row.pop("step", None)
        self.earlier = {**row, "epoch": saved["epoch"]}
        given: Given = set()
        for file in _files(trainer) if goes_on(trainer) else ():
            given |= given_in(file.behind(saved["count"]))
            file.keep(saved["count"])
            if row and saved["due"]:
                file.log_metrics(row, int(step))
                file.save()
        if goes_on(trainer):
            spare_repeats(trainer, checkpoint["global_step"], given, row, saved["due"])


def _version(logger: Any) -> str | None:
    """By which a logger finds its folder, or W&B its run, again."""
    return f"version_{logger.version}" if isinstance(logger.version, int) else logger.version


def _files(trainer: L.Trainer) -> list[Rows]:
    """On rank 0: of its loggers, those that write such a file."""
    loggers = trainer.loggers if trainer.is_global_zero else []
    return [logger.experiment for logger in loggers if isinstance(logger, MetricsFile)]
