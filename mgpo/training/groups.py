"""A step's rollouts in groups, one a question, and the pool that waits for groups with a signal.

Shapes: B questions, G rollouts a question, N = B · G trajectories.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from mgpo.objective import has_signal
from mgpo.rollout.episodes import seed_of
from mgpo.types import Trajectory


@dataclass
class Groups:
    """Judged trajectories, a question's next to each other. `counted_BG` is false where one is masked or failed."""

    trajectories: list[Trajectory]
    rewards_BG: Tensor
    counted_BG: Tensor

    @classmethod
    def of(cls, trajectories: list[Trajectory], size: int, mask_unfinished: bool = False) -> "Groups":
        """Groups of judged trajectories, `size` to a question.

        With `mask_unfinished`, those that a limit kept from answering do not count; failed ones never do.
        """
        rewards_BG = torch.tensor([t.reward for t in trajectories]).view(-1, size)
        counted = [t.failed is None and not (mask_unfinished and t.unfinished) for t in trajectories]
        return cls(trajectories, rewards_BG, torch.tensor(counted).view(-1, size))

    @property
    def signal_B(self) -> Tensor:
        """Whether the counted rewards of each group differ: (B,)."""
        return has_signal(self.rewards_BG, self.counted_BG)

    def counted_N(self, constant: bool) -> Tensor:
        """Whether each trajectory counts in the loss, (N,); those of groups of constant reward only if `constant`."""
        return (self.counted_BG & (self.signal_B[:, None] | constant)).flatten()

    def select(self, rows: list[int]) -> "Groups":
        """The groups with these numbers, in this order."""
        size = self.rewards_BG.shape[1]
        chosen = [self.trajectories[i * size + j] for i in rows for j in range(size)]
        return Groups(chosen, self.rewards_BG[rows], self.counted_BG[rows])


class DynamicSamplingPool:
    """Groups of one and the same policy, gathered until a batch is full of those with a signal.

    Args:
        batches: Batches of questions at most; then groups of constant reward fill the rest.
    """

    def __init__(self, batches: int) -> None:
        self.batches = batches
        self.drawn = 0  # batches since the pool was empty, those without a usable question too
        self.waiting: list[Groups] = []

    def add(self, groups: Groups, wanted: int) -> bool:
        """Take these in; whether it is enough."""
        self.waiting.append(groups)
        return len(self.waiting) >= self.batches or sum(int(g.signal_B.sum()) for g in self.waiting) >= wanted

    def take(self, wanted: int) -> Groups:
        """`wanted` groups, those with a signal first; what is left over is let go, because the policy moves on."""
        trajectories = [t for groups in self.waiting for t in groups.trajectories]
        rewards_BG = torch.cat([groups.rewards_BG for groups in self.waiting])
        counted_BG = torch.cat([groups.counted_BG for groups in self.waiting])
        self.clear()
        everything = Groups(trajectories, rewards_BG, counted_BG)
        order = torch.argsort(everything.signal_B.int(), descending=True, stable=True)
        return everything.select(order[:wanted].tolist())

    def clear(self) -> None:
        """Let all waiting groups go, and count batches from 0 again."""
        self.drawn, self.waiting = 0, []


@dataclass(frozen=True)
class MiniBatch:
    """Trajectories of one update, their advantages, and what each of their tokens weighs in the loss: (N,)."""

    trajectories: list[Trajectory]
    advantages_N: Tensor
    weights_N: Tensor

    def select(self, rows: list[int]) -> "MiniBatch":
        """A part of it, whose weights stay those in the whole."""
        return MiniBatch([self.trajectories[row] for row in rows], self.advantages_N[rows], self.weights_N[rows])


def mini_batches(groups: Groups, count: int, key: tuple[int, ...]) -> list[list[int]]:
    """Rows of each mini-batch, of N; a group is never split, and one mini-batch keeps the order.

    Args:
        groups: All of a step.
        count: Mini-batches; fewer where there are fewer groups.
        key: Makes the order in which groups are dealt out: (run seed, step, epoch).
    """
    questions, size = groups.rewards_BG.shape
    order = torch.arange(questions)
    if count > 1:
        order = torch.randperm(questions, generator=torch.Generator().manual_seed(seed_of(*key)))
    parts = order.tensor_split(min(count, questions))
    return [[g * size + i for g in part.tolist() for i in range(size)] for part in parts]
