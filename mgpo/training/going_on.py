"""Going on behind a checkpoint exactly, which Lightning's own loops do not."""

from typing import Any, cast

import lightning as L
from lightning.pytorch.callbacks import StochasticWeightAveraging

from mgpo.checkpoints.loop_state import BATCHES, cut_short, end_batch, epoch_ended, reopen
from mgpo.data.batches import ALL
from mgpo.training.loop_settings import check_gone_on

WAITING = "waiting"  # in a checkpoint


class GoOn(L.Callback):
    """Has Lightning do what was due when a checkpoint was saved, once, and go on behind it.

    By itself it takes what was saved at the end of an epoch's last batch for a finished epoch, and leaves out the
    validation that is due behind a batch, and the rest of an epoch that `max_time` has ended; under `max_steps` it
    goes on in an epoch that has ended, and never ends the one in which the last step was made. Groups that waited
    are rolled out again, by the weights they were made by.
    """

    def __init__(self) -> None:
        self.max_steps: int | None = None  # while Lightning must not know them
        self.made = False  # the last step
        self.waiting = 0  # batches whose groups wait for others

    def on_save_checkpoint(self, trainer: L.Trainer, pl_module: Any, checkpoint: dict[str, Any]) -> None:
        """Puts into the checkpoint how many batches have groups that wait for others."""
        checkpoint[WAITING] = pl_module.pool.drawn

    def on_load_checkpoint(self, trainer: L.Trainer, pl_module: Any, checkpoint: dict[str, Any]) -> None:
        """Corrects the loops' progress, so that what was due when it was saved is done once and nothing twice.

        Raises:
            UserError: Where the optimiser or its schedule is of another kind than the checkpoint's.
        """
        if trainer.state.fn != "fit":
            return
        callbacks: list[L.Callback] = cast(Any, trainer).callbacks
        if not any(isinstance(callback, StochasticWeightAveraging) for callback in callbacks):  # which has its own
            check_gone_on(checkpoint, pl_module.configure_optimizers())
        self.waiting = checkpoint.get(WAITING, 0)
        loops = checkpoint["loops"]["fit_loop"]
        end_batch(loops)
        self.made = 0 <= trainer.max_steps <= checkpoint["global_step"]
        if not self.made and cut_short(checkpoint):
            reopen(loops)
        ended = epoch_ended(loops)
        if trainer.max_steps >= 0 and not (self.made and ended):
            self.max_steps, trainer.fit_loop.epoch_loop.max_steps = trainer.max_steps, -1
        if not ended and (self.made or loops[BATCHES]["is_last_batch"]):
            loops[BATCHES]["is_last_batch"] = True
            for loader in loops["state_dict"].get("combined_loader", []):
                loader["handed_out"] = ALL

    def on_train_start(self, trainer: L.Trainer, pl_module: Any) -> None:
        """Rolls the groups that waited out again, by the weights that made them."""
        if not self.made:
            self._limit(trainer)
        pl_module.pool.clear()
        loader: Any = trainer.train_dataloader
        with trainer.precision_plugin.forward_context():  # which Lightning sets around its own steps only
            for batch in loader.again(self.waiting) if self.waiting else ():
                pl_module.pool.drawn += 1
                if samples := pl_module.playable(batch):
                    groups = pl_module.play(samples)
                    if groups.trajectories:  # a sampler that runs ahead has none yet
                        pl_module.measure_looks(groups)
                        pl_module.pool.add(groups, len(samples))

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: Any) -> None:
        """Gives Lightning its limit of steps back, where that was held back for the epoch."""
        self._limit(trainer)

    def _limit(self, trainer: L.Trainer) -> None:
        if self.max_steps is not None:
            trainer.fit_loop.epoch_loop.max_steps, self.max_steps = self.max_steps, None
