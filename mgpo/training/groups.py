"""A step's rollouts in groups, one a question, and the pool that waits for groups with a signal.

Shapes: B questions, G rollouts a question, N = B · G trajectories.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from mgpo.objective import evidence_grades, has_signal
from mgpo.rollout.episodes import seed_of
from mgpo.types import Trajectory
from mgpo.utils.allocator import moved


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
        return cls(trajectories, rewards_BG, torch.tensor(counted, dtype=torch.bool).view(-1, size))

    @property
    def played(self) -> list[list[Trajectory]]:
        """Of each group those that were played to the end."""
        size = self.rewards_BG.shape[1]
        groups = [self.trajectories[i : i + size] for i in range(0, len(self.trajectories), size)]
        return [[trajectory for trajectory in group if trajectory.failed is None] for group in groups]

    @property
    def looks_BGK(self) -> Tensor:
        """What each look was worth, in [0, 1]: 0 where it was refused or not taken, K = 0 where it was not measured."""
        evidence = [[turn.evidence for turn in t.turns if turn.evidence is not None] for t in self.trajectories]
        most = max(map(len, evidence), default=0)
        margins_NK = torch.tensor([[*values, *[0.0] * (most - len(values))] for values in evidence])
        margins_BGK = margins_NK.view(*self.rewards_BG.shape, most)
        grades = [evidence_grades(margins_BG, self.counted_BG) for margins_BG in margins_BGK.unbind(2)]
        return torch.stack(grades, 2) if grades else margins_BGK

    @property
    def signal_B(self) -> Tensor:
        """Whether the counted rewards of each group differ, or what its looks were worth: (B,)."""
        signals = [has_signal(values_BG, self.counted_BG) for values_BG in (self.rewards_BG, *self.looks_BGK.unbind(2))]
        return torch.stack(signals).any(0)

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
    """Trajectories of one update, of each the advantages of its learnt tokens, and what these weigh in the loss."""

    trajectories: list[Trajectory]
    advantages: list[Tensor]
    weights_N: Tensor

    @property
    def moved_N(self) -> Tensor:
        """Which trajectories have a token that counts and an advantage: (N,)."""
        return (self.weights_N != 0) & torch.tensor([bool(values.any()) for values in self.advantages])

    def advantages_NC(self, policy_NC: Tensor) -> Tensor:
        """The advantages in the places of their tokens, on that mask's device; 0 elsewhere."""
        values_M = moved(torch.cat(self.advantages), policy_NC.device)
        return torch.zeros(policy_NC.shape, device=policy_NC.device).masked_scatter(policy_NC, values_M)

    def select(self, rows: list[int]) -> "MiniBatch":
        """A part of it, whose weights stay those in the whole."""
        trajectories = [self.trajectories[row] for row in rows]
        return MiniBatch(trajectories, [self.advantages[row] for row in rows], self.weights_N[rows])


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
