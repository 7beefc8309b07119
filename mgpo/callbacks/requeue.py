"""Under SLURM: gives the machines back when asked to, without losing more than the time of a new start."""

import os
import signal
import subprocess
from pathlib import Path
from typing import Any

import lightning as L
from lightning.fabric.plugins.environments.slurm import SLURMEnvironment
from lightning.fabric.plugins.environments.torchelastic import TorchElasticEnvironment

from mgpo.callbacks.folder import run_folder
from mgpo.distributed import FSDP2Strategy

SIGNAL = signal.SIGUSR1
LAST = "checkpoints/last.ckpt"


class Requeue(L.Callback):
    """On SIGUSR1 finishes the step, saves `checkpoints/last.ckpt` into the run directory and puts the job back.

    Lightning's own handler saves wherever the signal finds a process: between two updates of a step, or while others
    wait for it in an exchange. Here the signal is only noted; all ranks save at the end of the same step, whichever of
    them it reached, and the process ends before the next one. Whatever the run does then, such as the evaluation at
    its end, is left to the job's next start as well. A signal that comes during an evaluation is heeded behind it.
    """

    def __init__(self) -> None:
        self.asked = self.saved = False

    def setup(self, trainer: L.Trainer, pl_module: Any, stage: str) -> None:
        """Listens for SIGUSR1 before Lightning would, which leaves a handler that is there alone."""
        signal.signal(SIGNAL, self._note)  # Lightning leaves a handler that is there alone

    def _note(self, *_: Any) -> None:
        self.asked = True

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Saves `checkpoints/last.ckpt` on all ranks, if any of them has had the signal by the end of this step."""
        if not trainer.strategy.reduce_boolean_decision(self.asked, all=False):
            return
        folder = run_folder(trainer) if trainer.is_global_zero else Path()  # only this rank is sure to know it
        trainer.save_checkpoint(trainer.strategy.broadcast(folder) / LAST)
        self.saved = True

    def on_train_batch_start(self, trainer: L.Trainer, pl_module: Any, batch: Any, batch_idx: int) -> None:
        """Puts the job back and ends the process where the step before was saved; by now loggers have that step."""
        self._leave(trainer)

    def on_validation_start(self, trainer: L.Trainer, pl_module: Any) -> None:
        """Puts the job back and ends the process where a step was saved; the next start evaluates."""
        self._leave(trainer)

    def _leave(self, trainer: L.Trainer) -> None:
        """Only now, so that the loggers have the step that was saved."""
        if not self.saved:
            return
        if isinstance(trainer.strategy, FSDP2Strategy):
            trainer.strategy.finish_saving()
        trainer.strategy.barrier()
        if trainer.is_global_zero:
            requeue(run_folder(trainer) / LAST)
        raise SystemExit(0)


def under_srun() -> bool:
    """Whether Lightning takes its ranks from SLURM."""
    return SLURMEnvironment.detect() and not TorchElasticEnvironment.detect()


def requeue(saved: Path) -> None:
    """Put this job, of an array this task, back into the queue. SLURM then ends what still runs of it."""
    job = os.environ["SLURM_JOB_ID"]
    if array := os.environ.get("SLURM_ARRAY_JOB_ID"):
        job = f"{array}_{os.environ['SLURM_ARRAY_TASK_ID']}"
    print(f"saved {saved}; job {job} goes back into the queue", flush=True)
    try:
        failed = subprocess.run(["scontrol", "requeue", job]).returncode
    except OSError as error:
        failed = error
    if failed:
        print(f"scontrol requeue {job} failed ({failed}); a new job goes on with --ckpt_path {saved}", flush=True)
