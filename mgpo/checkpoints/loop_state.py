"""Lightning's account of how far a run has come, as its checkpoints hold it, and going on from there exactly."""

from collections.abc import Mapping
from typing import Any

from mgpo.errors import UserError

EPOCHS = "epoch_progress"
BATCHES = "epoch_loop.batch_progress"
VALIDATION = "epoch_loop.val_loop.batch_progress"
COUNTED = ("ready", "started", "processed", "completed")


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
    """Change what was saved of Lightning's loops while a batch ended, as if it had ended and nothing come after."""
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


def cut_short(checkpoint: Mapping[str, Any]) -> bool:
    """Whether a clock ended the epoch before its last batch; an epoch that early stopping ended has ended."""
    loops = checkpoint["loops"]["fit_loop"]
    states = [state for state in checkpoint["callbacks"].values() if isinstance(state, dict) and "wait_count" in state]
    stopped = any(state["wait_count"] >= state["patience"] or state["stopped_epoch"] > 0 for state in states)
    begun = loops[EPOCHS]["current"]["processed"] > 0 and loops[BATCHES]["current"]["ready"] > 0
    return begun and epoch_ended(loops) and not loops[BATCHES]["is_last_batch"] and not stopped


def reopen(loops: dict[str, Any]) -> None:
    """Change what was saved of Lightning's loops behind an epoch that was cut short, as if it had not ended."""
    for count in (loops[EPOCHS]["total"], loops[EPOCHS]["current"]):
        count["processed"] -= 1


def nothing_left(checkpoint: Mapping[str, Any], max_epochs: int, max_steps: int) -> bool:
    """Whether no step is left to be made; limits below 0 are none."""
    loops = checkpoint["loops"]["fit_loop"]
    unended = not epoch_ended(loops) and loops[BATCHES]["is_last_batch"]
    epochs = loops[EPOCHS]["current"]["processed"] + unended - cut_short(checkpoint)
    return 0 <= max_epochs <= epochs or 0 <= max_steps <= checkpoint["global_step"]
