"""Checkpoints every so many updates, also where a step makes several of them or leaves some out."""

from typing import Any

import lightning as L
from lightning.pytorch.callbacks import ModelCheckpoint

from mgpo.errors import UserError


class LastCheckpoint(ModelCheckpoint):
    """Saves at the end of each step in which a multiple of `every_n_train_steps` updates was reached or passed.

    Lightning's own saves where the updates behind a step are such a multiple: with four updates a step never again,
    once one of them was left out because it was not finite. Its arguments are those of Lightning's, but for `monitor`
    and `train_time_interval`.

    Raises:
        UserError: For one of these two.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        if self.monitor is not None or options.get("train_time_interval") is not None:
            raise UserError(
                "LastCheckpoint saves by updates; for a monitor or a clock take Lightning's ModelCheckpoint"
            )
        self.passed = 0  # multiples so far

    def on_train_start(self, trainer: L.Trainer, pl_module: Any) -> None:
        """Counts from the updates with which training begins or goes on."""
        super().on_train_start(trainer, pl_module)
        self.passed = self._multiples(trainer)

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Saves where one more multiple has been passed."""
        passed, self.passed = self.passed, self._multiples(trainer)
        if self.passed > passed and not self._should_skip_saving_checkpoint(trainer):
            candidates = self._monitor_candidates(trainer)
            self._save_topk_checkpoint(trainer, candidates)
            self._save_last_checkpoint(trainer, candidates)

    def _multiples(self, trainer: L.Trainer) -> int:
        return trainer.global_step // self._every_n_train_steps if self._every_n_train_steps else 0
