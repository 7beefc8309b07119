"""Logs how fast a run is, where its time goes and how much memory it takes."""

from statistics import fmean
from typing import Any

import lightning as L
import torch

from mgpo.monitoring.throughput import Stopwatch, cpu_use, evaluation_speed, gpu_use, peak_memory, training_speed
from mgpo.training.phase_timer import Work
from mgpo.utils.collectives import share_objects


class ThroughputMonitor(L.Callback):
    """Curves under `speed/` and `memory/`, once a training step and once an evaluation.

    `mgpo.monitoring.throughput` defines them.

    A step lasts from the end of the last one to its own, so that waiting for data counts; evaluations don't.
    Tokens and trajectories are those of all ranks together, memory is that of the rank with the most.

    Args:
        synchronise: Wait for the GPU where a phase begins and ends. Its seconds are then exact, at a small cost.
    """

    def __init__(self, synchronise: bool = False) -> None:
        self.synchronise = synchronise
        self.watch = Stopwatch()
        self.evaluated = 0.0  # seconds of evaluation before this one

    def setup(self, trainer: L.Trainer, pl_module: Any, stage: str) -> None:
        """Has the module's timer wait for the GPU at the ends of phases, where `synchronise` asks for it."""
        if self.synchronise and torch.cuda.is_available():
            pl_module.timer.wait = torch.cuda.synchronize

    def on_train_start(self, trainer: L.Trainer, pl_module: Any) -> None:
        """Starts the stopwatch, so that what came before training does not count."""
        self.watch.restart(pl_module.timer.read())

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Logs speed and memory of the step, out of what all ranks have measured."""
        lap = self.watch.lap(pl_module.timer.read())
        used = {"cpu_utilisation": cpu_use(lap), "gpu_utilisation": gpu_use(pl_module.device)}
        used = {name: value for name, value in used.items() if value is not None}
        laps, uses, peaks = zip(
            *share_objects((lap, used, peak_memory(pl_module.device)), trainer.world_size), strict=True
        )
        speed = training_speed(list(laps)) | {name: fmean(u[name] for u in uses if name in u) for name in used}
        memory = {name: max(peak[name] for peak in peaks) for name in peaks[0]}
        self._log(pl_module, {f"speed/{name}": value for name, value in speed.items()})
        self._log(pl_module, {f"memory/{name}": value for name, value in memory.items()})

    def on_validation_epoch_start(self, trainer: L.Trainer, pl_module: Any) -> None:
        """Notes the seconds that earlier evaluations have taken, so that they do not count."""
        self.evaluated = pl_module.timer.phases["evaluation"].seconds

    def on_validation_epoch_end(self, trainer: L.Trainer, pl_module: Any) -> None:
        """Logs the speed of the evaluation over all ranks; nothing of Lightning's sanity check."""
        if trainer.sanity_checking:
            return
        seconds = pl_module.timer.phases["evaluation"].seconds - self.evaluated
        records = pl_module.records  # this rank's own: the module gathers them after this hook
        work = Work(seconds, sampled=sum(record.tokens for record in records), trajectories=len(records))
        speed = evaluation_speed(share_objects(work, trainer.world_size))
        self._log(pl_module, {f"speed/{name}": value for name, value in speed.items()})

    def on_validation_end(self, trainer: L.Trainer, pl_module: Any) -> None:
        """Restarts the stopwatch, so that the evaluation does not count as part of the next step."""
        self.watch.restart(pl_module.timer.read())

    on_test_epoch_start = on_validation_epoch_start
    on_test_epoch_end = on_validation_epoch_end

    def _log(self, pl_module: Any, metrics: dict[str, float]) -> None:
        """The same on all ranks; rank 0 speaks."""
        pl_module.log_dict(metrics, batch_size=1, rank_zero_only=True)
