"""Keeps every training rollout as a row of Parquet, without its pixels."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import lightning as L
import pyarrow.parquet as pq

from mgpo.callbacks.folder import goes_on, run_folder
from mgpo.errors import UserError
from mgpo.monitoring.rollout_table import rows_of, table_of
from mgpo.utils.atomic_files import replaced

FOLDER = "rollouts"
KEEP_GB = 10.0
BATCH = b"first_batch"  # of the run that may be in a shard: steps of several batches have the same number


class RolloutLog(L.Callback):
    """Writes `rollouts/rank-R-steps-A-B.parquet` into the run directory: a row a rollout.

    The columns are those of `mgpo.monitoring.rollout_table.SCHEMA`.
    `datasets.load_dataset("parquet", data_files="…/rollouts/*.parquet")` reads them all. A shard appears under
    its name when it is whole, also where training is interrupted or fails, and no other is ever replaced: where
    the name is taken, as after a second run into the same folder, a number is added, and `run` tells the rows apart.
    A run that goes on in its own folder first takes away the rows of the steps that it does again. Supervised
    runs learn from no rollout, so they write nothing.

    Args:
        every_n_steps: Optimiser steps in a shard; there is one at every checkpoint too.
        keep_gb: Gigabytes that all ranks' shards may take; beyond that each rank removes its oldest, but for the last.
    """

    def __init__(self, every_n_steps: int = 20, keep_gb: float = KEEP_GB) -> None:
        if keep_gb < 0:
            raise UserError(f"RolloutLog.keep_gb is {keep_gb}; it is the gigabytes that rollouts may take")
        self.every_n_steps, self.keep_gb = every_n_steps, keep_gb
        self.told = False  # that shards are removed
        self.rows: list[dict[str, Any]] = []
        self.seen = 0  # rollouts of the run when rows were made last
        self.folder: Path | None = None  # once training has begun
        self.step = self.written = self.batch = 0

    def on_train_start(self, trainer: L.Trainer, pl_module: Any) -> None:
        """Agrees with all ranks on the folder, and on the time of the start, by which rows tell their run."""
        begun = ("", "")
        if trainer.is_global_zero:  # only this rank is sure to know the folder
            begun = (str(run_folder(trainer)), datetime.now(UTC).isoformat(timespec="milliseconds"))
        folder, self.run = trainer.strategy.broadcast(begun)
        self.folder = Path(folder) / FOLDER
        self.written, self.batch = trainer.global_step, trainer.fit_loop.total_batch_idx + 1

    def on_train_batch_start(self, trainer: L.Trainer, pl_module: Any, batch: Any, batch_idx: int) -> None:
        """Notes the step's number, and how many rollouts there were before it."""
        self.step, self.seen = trainer.global_step, self._made(pl_module)

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Keeps the step's rollouts as rows, and writes a shard once it covers `every_n_steps`."""
        self._keep(pl_module)
        if trainer.global_step - self.written >= self.every_n_steps:
            self._write(trainer)

    def on_save_checkpoint(self, trainer: L.Trainer, pl_module: Any, checkpoint: dict[str, Any]) -> None:
        """Writes the rows that wait, on every rank before any checkpoint is saved."""
        self._write(trainer)
        trainer.strategy.barrier()  # no checkpoint before every rank's rows

    def on_load_checkpoint(self, trainer: L.Trainer, pl_module: Any, checkpoint: dict[str, Any]) -> None:
        """Removes the shards of steps after the checkpoint, which a run in its own folder does again."""
        if goes_on(trainer):
            done = checkpoint["loops"]["fit_loop"]["epoch_loop.batch_progress"]["total"]["ready"]
            for path in (run_folder(trainer) / FOLDER).glob("rank-*-steps-*"):
                if path.suffix != ".parquet" or _first_batch(path) >= done:
                    path.unlink()

    def on_train_end(self, trainer: L.Trainer, pl_module: Any) -> None:
        """Writes the rows that wait as the last shard."""
        self._write(trainer)

    def on_exception(self, trainer: L.Trainer, pl_module: Any, exception: BaseException) -> None:
        """Writes the rows that wait, with the rollouts of the step that failed."""
        if self.folder is not None:
            self._keep(pl_module)  # the step that failed may have rolled out before
            self._write(trainer)

    def _keep(self, pl_module: Any) -> None:
        """Turn the step's rollouts into rows, once: a step without usable questions leaves the last ones in place."""
        if (made := self._made(pl_module)) != self.seen:
            self.seen = made
            self.rows += rows_of(pl_module.rolled_out, pl_module.group_size, self.step, self.run)

    def _made(self, pl_module: Any) -> int:
        return pl_module.timer.phases["rollout"].trajectories

    def _write(self, trainer: L.Trainer) -> None:
        self.written = trainer.global_step
        if not self.rows or self.folder is None:
            return
        steps = [row["step"] for row in self.rows]
        stem = f"rank-{trainer.global_rank}-steps-{min(steps):06d}-{max(steps):06d}"
        path, number = self.folder / f"{stem}.parquet", 1
        while path.exists():
            number += 1
            path = self.folder / f"{stem}-{number}.parquet"
        with replaced(path) as unfinished:
            pq.write_table(table_of(self.rows).replace_schema_metadata({BATCH: str(self.batch)}), unfinished)
        self.rows, self.batch = [], trainer.fit_loop.total_batch_idx + 1
        self._make_room(trainer)

    def _make_room(self, trainer: L.Trainer) -> None:
        """Remove this rank's oldest shards, of earlier runs into the folder too, until its share is kept to."""
        assert self.folder is not None
        shards = sorted(self.folder.glob(f"rank-{trainer.global_rank}-*.parquet"), key=lambda p: p.stat().st_mtime_ns)
        sizes = [path.stat().st_size for path in shards]
        while len(shards) > 1 and sum(sizes) > self.keep_gb * 1e9 / trainer.world_size:
            shards.pop(0).unlink()
            sizes.pop(0)
            if not self.told:
                self.told = True
                trainer.lightning_module.print(
                    f"rollouts: the oldest are removed from now on (keep_gb: {self.keep_gb:g})"
                )


def _first_batch(shard: Path) -> int:
    return int((pq.read_schema(shard).metadata or {}).get(BATCH, 0))
