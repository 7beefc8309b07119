"""Lightning's account of how far a run has come, as its checkpoints hold it, and going on from there exactly."""

from collections.abc import Mapping
from typing import Any

import lightning as L

from mgpo.data.batches import ALL
from mgpo.errors import UserError

EPOCHS = "epoch_progress"
BATCHES = "epoch_loop.batch_progress"
VALIDATION = "epoch_loop.val_loop.batch_progress"
COUNTED = ("ready", "started", "processed", "completed")
WAITING = "waiting"  # in a checkpoint


class GoOn(L.Callback):
    """Has Lightning do what was due when a checkpoint was saved, once, and go on behind it.

    By itself it takes what was saved at the end of an epoch's last batch for a finished epoch, and leaves out the
    validation that is due behind a batch; under `max_steps` it goes on in an epoch that has ended, and never ends the
    one in which the last step was made. Groups that waited are rolled out again, by the weights they were made by.
    """

    def __init__(self) -> None:
        self.max_steps: int | None = None  # while Lightning must not know them
        self.made = False  # the last step
        self.waiting = 0  # batches whose groups wait for others

    def on_save_checkpoint(self, trainer: L.Trainer, pl_module: Any, checkpoint: dict[str, Any]) -> None:
        checkpoint[WAITING] = pl_module.pool.drawn

    def on_load_checkpoint(self, trainer: L.Trainer, pl_module: Any, checkpoint: dict[str, Any]) -> None:
        if trainer.state.fn != "fit":
            return
        self.waiting = checkpoint.get(WAITING, 0)
        loops = checkpoint["loops"]["fit_loop"]
        end_batch(loops)
        self.made, ended = 0 <= trainer.max_steps <= checkpoint["global_step"], epoch_ended(loops)
        if trainer.max_steps >= 0 and not (self.made and ended):
            self.max_steps, trainer.fit_loop.epoch_loop.max_steps = trainer.max_steps, -1
        if not ended and (self.made or loops[BATCHES]["is_last_batch"]):
            loops[BATCHES]["is_last_batch"] = True
            for loader in loops["state_dict"].get("combined_loader", []):
                loader["handed_out"] = ALL

    def on_train_start(self, trainer: L.Trainer, pl_module: Any) -> None:
        if not self.made:
            self._limit(trainer)
        pl_module.pool.clear()
        loader: Any = trainer.train_dataloader
        for batch in loader.again(self.waiting) if self.waiting else ():
            pl_module.pool.drawn += 1
            if samples := pl_module.samples(batch):
                pl_module.pool.add(pl_module.play(samples), len(samples))

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: Any) -> None:
        self._limit(trainer)

    def _limit(self, trainer: L.Trainer) -> None:
        if self.max_steps is not None:
            trainer.fit_loop.epoch_loop.max_steps, self.max_steps = self.max_steps, None


def check(checkpoint: Mapping[str, Any]) -> None:
    """Raises UserError for a checkpoint with which training can't go on."""
    if not {"optimizer_states", "lr_schedulers", "callbacks"} <= checkpoint.keys():
        raise UserError(
            "the checkpoint holds weights alone; begin a new run from them, with model.policy.init_args.start"
        )
    try:
        loops = checkpoint["loops"]["fit_loop"]
        counts = [loops[name][part] for name in (EPOCHS, BATCHES, VALIDATION) for part in ("total", "current")]
        whole = all(type(count[name]) is int for count in counts for name in COUNTED)
        whole = whole and type(loops["state_dict"]) is dict and type(loops[BATCHES]["is_last_batch"]) is bool
    except (KeyError, TypeError):
        whole = False
    if not whole:
        raise UserError(
            "the checkpoint does not say how far its run had come; begin a new run from its weights, with "
            "model.policy.init_args.start"
        )


def end_batch(loops: dict[str, Any]) -> None:
    """In place: of what was saved while a batch ended, as if that had ended, and nothing been done since."""
    batches = loops[BATCHES]
    if batches["total"]["completed"] == batches["total"]["processed"]:
        return
    for count in (batches["total"], batches["current"]):
        count["completed"] += 1
    begun = {"ready": 1, "started": 1, "processed": 0, "completed": 0}  # a validation, broken off in its first batch
    loops[VALIDATION] = {"total": begun, "current": {**begun}, "is_last_batch": False}


def epoch_ended(loops: Mapping[str, Any]) -> bool:
    """Whether it was saved between two epochs, or behind the last."""
    epochs = loops[EPOCHS]["current"]
    return epochs["processed"] == epochs["started"]


def nothing_left(checkpoint: Mapping[str, Any], max_epochs: int, max_steps: int) -> bool:
    """Whether no step is left to be made; limits below 0 are none."""
    loops = checkpoint["loops"]["fit_loop"]
    unended = not epoch_ended(loops) and loops[BATCHES]["is_last_batch"]
    epochs = loops[EPOCHS]["current"]["processed"] + unended
    return 0 <= max_epochs <= epochs or 0 <= max_steps <= checkpoint["global_step"]
