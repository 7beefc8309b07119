"""Draws what the policy looks at: one HTML page a run, before and after training."""

from typing import Any

import lightning as L

from mgpo.callbacks.folder import run_folder
from mgpo.page import write_page
from mgpo.types import Trajectory

NAME = "rollouts.html"


class FirstPicture(L.Callback):
    """Rolls out a group for the first questions of each evaluation and draws all of its boxes.

    Args:
        questions: How many questions; 0 draws nothing.
    """

    def __init__(self, questions: int = 12) -> None:
        self.questions = questions
        self.columns: dict[str, list[Trajectory]] = {}

    def on_validation_batch_end(
        self, trainer: L.Trainer, pl_module: Any, outputs: Any, batch: list, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        if self.questions and batch_idx == dataloader_idx == 0 and not trainer.sanity_checking:
            samples = pl_module.usable(batch)[: self.questions]
            self.columns[f"step {trainer.global_step}"] = pl_module.roll_out(samples, step=0) if samples else []

    def on_validation_end(self, trainer: L.Trainer, pl_module: Any) -> None:
        if self.columns and not trainer.sanity_checking and trainer.is_global_zero:
            path = run_folder(trainer) / NAME
            write_page(path, self.columns)
            print(f"picture: {path}")

    def on_test_batch_end(self, *args: Any, **kwargs: Any) -> None:
        self.on_validation_batch_end(*args, **kwargs)

    def on_test_end(self, trainer: L.Trainer, pl_module: Any) -> None:
        self.on_validation_end(trainer, pl_module)
