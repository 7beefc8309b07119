"""Validations in the middle of training: when they come, and what callbacks may save or stop by."""

from collections.abc import Collection
from difflib import get_close_matches
from math import ceil
from typing import Any

from mgpo.data.base import split_of
from mgpo.errors import UserError

OTHERS = ("", "train", "speed", "memory", "warning", "audit")  # parts of a curve's name that are no split
SHOWN = 12  # names in a sentence


def check_validations(trainer: Any, data: Any, metrics: Collection[str], updates: int | None = 1) -> None:
    """Raises UserError for fewer questions than a step takes, for an interval longer than an epoch, and for a `monitor`
    that would never have a value.

    Lightning itself has a traceback for some of these, and for others no word.

    Args:
        trainer: Whose callbacks and loop are looked at.
        data: A data module that knows its sources.
        metrics: The names of an evaluation's curves, without their split.
        updates: That a batch makes, by which `trainer.max_steps` counts; None where that depends on the rewards.
    """
    if data.train is not None and (wanted := trainer.world_size * data.batch_size) > len(data.train):
        raise UserError(
            f"data.train has {len(data.train)} questions that can be used, and a step takes {wanted}; give it more, or "
            "lower data.batch_size"
        )
    check_interval(trainer, steps := steps_of(trainer, data))
    comes = validates(trainer, steps, updates)
    splits = dict.fromkeys(split_of(source) for source in data.val)
    for callback in trainer.callbacks:
        if isinstance(monitor := getattr(callback, "monitor", None), str):
            check_monitor(type(callback).__name__, monitor, splits, metrics, comes)


def check_interval(trainer: Any, steps: int) -> None:
    """Raises UserError where validations were to be further apart than an epoch is long."""
    interval = trainer.val_check_interval
    if trainer.check_val_every_n_epoch is not None and type(interval) is int and 0 < steps < interval:
        raise UserError(
            f"trainer.val_check_interval is {interval}, but an epoch has {steps} steps; take at most as many, or count "
            "on over epochs, with trainer.check_val_every_n_epoch null"
        )


def check_monitor(who: str, monitor: str, splits: Collection[str], metrics: Collection[str], comes: bool) -> None:
    """Raises UserError where `monitor` names no curve, or one of validations of which none `comes`."""
    split, _, metric = monitor.rpartition("/")
    if split not in splits and monitor.partition("/")[0] not in OTHERS:
        near = (metric if metric in metrics else "", *get_close_matches(metric, metrics, 1), "accuracy")
        such = f"; take {next(iter(splits))}/{next(filter(None, near))}" if splits else ""
        raise UserError(f"{who}.monitor is {monitor}; the splits of data.val are {_listed(splits)}{such}")
    if split not in splits:
        return
    if metric not in metrics:
        raise UserError(f"{who}.monitor is {monitor}; of {split} there are {_listed(f'{split}/{m}' for m in metrics)}")
    if not comes:
        raise UserError(
            f"{who}.monitor is {monitor}, but no validation comes before training ends; add "
            "trainer.check_val_every_n_epoch 1 and, for more than one an epoch, trainer.val_check_interval in steps"
        )


def validates(trainer: Any, steps: int, updates: int | None) -> bool:
    """Whether a validation comes before training ends, of epochs of so many steps that make so many updates each."""
    every, epochs, interval = trainer.check_val_every_n_epoch, trainer.max_epochs, trainer.val_check_interval
    if trainer.fast_dev_run or not trainer.limit_val_batches:
        return bool(trainer.fast_dev_run)
    if every is not None and epochs is not None and 0 <= epochs < every:
        return False
    if trainer.max_steps < 0 or not updates:
        return True
    within = interval if isinstance(interval, int) else int(steps * interval)
    return ceil(trainer.max_steps / updates) >= (within if every is None else (every - 1) * steps + within)


def steps_of(trainer: Any, data: Any) -> int:
    """Batches of an epoch on each rank, of which `limit_train_batches` may leave out some."""
    if data.train is None:
        return 0
    whole, limit = len(data.train) // (trainer.world_size * data.batch_size), trainer.limit_train_batches
    return min(whole, limit) if isinstance(limit, int) else int(whole * limit)


def _listed(names: Any) -> str:
    return ", ".join(list(names)[:SHOWN]) or "none"
