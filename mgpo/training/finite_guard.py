"""Updates come from finite numbers alone: others are left out, shown, and in the end stop the run."""

import math
from collections.abc import Callable, Sequence
from contextlib import ExitStack

import torch
from torch import Tensor

from mgpo.distributed import gathered
from mgpo.errors import UserError
from mgpo.policy.base import Policy
from mgpo.training.groups import MiniBatch
from mgpo.training.step_metrics import PassMetrics
from mgpo.types import Trajectory
from mgpo.utils.collectives import share_objects

PATIENCE = 5  # updates left out one after the other
SHOWN = 300  # characters of each text
REWARD = "a reward of "
Loss = Callable[[MiniBatch], tuple[Tensor, PassMetrics]]


class FiniteGuard:
    """Counts updates that were left out, one after the other."""

    def __init__(self) -> None:
        self.in_a_row = 0

    def count(self, finite: bool, cause: Callable[[], str], say: Callable[[str], None]) -> None:
        """Note whether an update was made; where it was not, `say` why. All ranks must call.

        Raises:
            UserError: After `PATIENCE` updates in a row that had to be left out.
        """
        self.in_a_row = 0 if finite else self.in_a_row + 1
        if finite:
            return
        why = cause()
        say(f"update left out, {self.in_a_row} in a row: {why}")
        if self.in_a_row >= PATIENCE:
            remedy = "lower the learning rate, or take trainer.precision 32-true or bf16-mixed"
            raise UserError(
                f"{PATIENCE} updates in a row had a loss, a gradient or a reward that is not finite; "
                f"{'mend the reward' if REWARD in why else remedy}; the last: {why}"
            )


def all_finite(loss: float, norm: float, trajectories: Sequence[Trajectory]) -> bool:
    """Whether loss, gradient norm and rewards are numbers to learn from."""
    return all(math.isfinite(value) for value in (loss, norm, *(t.reward for t in trajectories)))


def cause_of(
    mini_batch: MiniBatch, loss: Loss, policies: Sequence[Policy], parameters: Sequence[Tensor], world_size: int
) -> str:
    """One line about the first trajectory of any rank that alone gives a number that is not finite. All must call.

    Args:
        mini_batch: What the update was made of.
        loss: Of a part of it.
        policies: All that the loss asks; they are gathered where they are sharded, since each rank passes until it
            finds something.
        parameters: Whose gradients are looked at; without any, losses alone are.
        world_size: Number of ranks.
    """
    with ExitStack() as stack, torch.set_grad_enabled(bool(parameters)):
        for policy in policies:
            stack.enter_context(gathered(policy))
        found = describe(mini_batch, loss, parameters)
    lines = [line for line in share_objects(found, world_size) if line is not None]
    if lines:
        return lines[0]
    if parameters:
        return "no single question gives such a number; their sum overflows"
    return "every question's loss by itself is finite; their gradients, sharded, were not looked at one by one"


def describe(mini_batch: MiniBatch, loss: Loss, parameters: Sequence[Tensor]) -> str | None:
    """The same of one rank; None where there is no such trajectory."""
    for trajectory in mini_batch.trajectories:  # first, because it makes the advantages of its whole group like it
        if not math.isfinite(trajectory.reward):
            return _line(trajectory, f"{REWARD}{trajectory.reward}")
    for row, trajectory in enumerate(mini_batch.trajectories):
        if not _sound(loss(mini_batch.select([row]))[0], parameters):
            return _line(trajectory, "a loss or gradient that is not finite")
    return None


def _line(trajectory: Trajectory, why: str) -> str:
    texts = [trajectory.question.text, *(turn.text for turn in trajectory.turns)]
    return f"question {trajectory.question.id} has {why}: " + " | ".join(repr(text[:SHOWN]) for text in texts)


def _sound(loss: Tensor, parameters: Sequence[Tensor]) -> bool:
    gradients = torch.autograd.grad(loss, parameters, allow_unused=True) if parameters else ()
    return all(bool(value.isfinite().all()) for value in (loss, *gradients) if value is not None)
