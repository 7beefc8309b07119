"""Optimiser steps that come from finite numbers alone: others are left out, shown, and in the end stop the run."""

import math
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor

from mgpo.distributed import FSDP2Strategy, clip_gradients, gathered
from mgpo.errors import UserError
from mgpo.training.step_metrics import PassMetrics
from mgpo.types import Trajectory
from mgpo.utils.collectives import share_objects

PATIENCE = 5  # steps left out one after the other
SHOWN = 300  # characters of each text
Part = Callable[[list[int]], tuple[Tensor, PassMetrics]]  # the loss of some rows, and metrics


class Guard:
    """Steps a module's optimiser where loss, gradient and rewards are finite on every rank, and nowhere else."""

    def __init__(self) -> None:
        self.in_a_row = 0  # steps left out

    def step(self, module: Any, loss: float, trajectories: Sequence[Trajectory], part: Part) -> None:
        """End an update whose gradients are there and whose passes add up to `loss`. All ranks must call.

        Raises:
            UserError: After `PATIENCE` updates in a row that had to be left out.
        """
        norm = clip_gradients(module.policy, module.max_grad_norm)
        finite = all(math.isfinite(value) for value in (loss, norm, *(t.reward for t in trajectories)))
        finite = module.trainer.strategy.reduce_boolean_decision(finite, all=True)
        optimizer, schedule = module.optimizers(), module.lr_schedulers()
        if finite:
            optimizer.step()
            if schedule is not None:
                schedule.step()
        optimizer.zero_grad()  # now, so that no gradients are held through rollouts
        module.tally.add({"grad_norm": norm, "loss": loss, "skipped_updates": float(not finite)}, 1)
        self.in_a_row = 0 if finite else self.in_a_row + 1
        if not finite:
            self._show(module, trajectories, part)

    def _show(self, module: Any, trajectories: Sequence[Trajectory], part: Part) -> None:
        sharded = isinstance(module.trainer.strategy, FSDP2Strategy)  # there a gradient takes all ranks
        parameters = [] if sharded else [p for p in module.policy.parameters() if p.requires_grad]
        with ExitStack() as whole, torch.set_grad_enabled(not sharded):
            for policy in (module.policy, *module.references):  # each rank passes until it finds something
                whole.enter_context(gathered(policy))
            found = describe(trajectories, part, parameters)
        lines = [line for line in share_objects(found, module.trainer.world_size) if line is not None]
        cause = lines[0] if lines else "no single question gives such a number; their sum overflows"
        module.print(f"update left out, {self.in_a_row} in a row: {cause}")
        if self.in_a_row >= PATIENCE:
            raise UserError(
                f"{PATIENCE} updates in a row had a loss, a gradient or a reward that is not finite; lower the "
                f"learning rate, or take trainer.precision 32-true or bf16-mixed; the last: {cause}"
            )


def describe(trajectories: Sequence[Trajectory], part: Part, parameters: Sequence[Tensor]) -> str | None:
    """One line about the first trajectory that alone gives a number that is not finite; None where none does.

    Without `parameters` gradients are not looked at.
    """
    for trajectory in trajectories:  # first, because it makes the advantages of its whole group like it
        if not math.isfinite(trajectory.reward):
            return _line(trajectory, f"a reward of {trajectory.reward}")
    for row, trajectory in enumerate(trajectories):
        if not _sound(part([row])[0], parameters):
            return _line(trajectory, "a loss or gradient that is not finite")
    return None


def _line(trajectory: Trajectory, why: str) -> str:
    texts = [trajectory.question.text, *(turn.text for turn in trajectory.turns)]
    return f"question {trajectory.question.id} has {why}: " + " | ".join(repr(text[:SHOWN]) for text in texts)


def _sound(loss: Tensor, parameters: Sequence[Tensor]) -> bool:
    gradients = torch.autograd.grad(loss, parameters, allow_unused=True) if parameters else ()
    return all(bool(value.isfinite().all()) for value in (loss, *gradients) if value is not None)
