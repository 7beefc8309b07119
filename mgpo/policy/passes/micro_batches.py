"""Trajectories dealt out to training passes by tokens: few passes, equally full, the longest first."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import count, groupby

import torch
from torch import Tensor

from mgpo.types import Trajectory
from mgpo.utils.collectives import share_objects

Agree = Callable[[int], int]  # the passes that one process needs -> those that all make


@dataclass(frozen=True)
class Part:
    """Rows of one group that go together, and how many tokens they have; their prompt is passed once."""

    prompt: int
    rows: tuple[int, ...]
    lengths: tuple[int, ...]

    @property
    def tokens(self) -> int:
        """Tokens that a pass over these rows has, their shared prompt once."""
        return self.prompt + sum(self.lengths)

    def split(self, parts: int) -> list["Part"]:
        """As many equally long parts, each of which passes the prompt again."""
        dealt = [sorted(hand) for hand in deal(self.lengths, parts)]
        return [
            Part(self.prompt, tuple(self.rows[i] for i in hand), tuple(self.lengths[i] for i in hand)) for hand in dealt
        ]


def micro_batches(
    trajectories: Sequence[Trajectory], budget: int, agree: Agree = lambda passes: passes
) -> list[list[int]]:
    """Rows of each pass: of at most `budget` tokens, or a single trajectory that has more.

    A group is split only where it does not fit. `agree` may ask for more passes, as where all processes must pass
    equally often, up to one for each trajectory.
    """
    if not trajectories:
        return []
    parts = [part for group in _groups(trajectories) for part in _fitting(group, budget)]
    needed = next(n for n in count(1) if n >= len(parts) or max(map(sum, _tokens(parts, n))) <= budget)
    passes = agree(needed)
    while len(parts) < passes:
        parts.sort(key=lambda part: len(part.rows))
        parts += parts.pop().split(2)
    dealt = sorted(deal([part.tokens for part in parts], passes), key=lambda hand: -sum(parts[i].tokens for i in hand))
    return [sorted(row for i in hand for row in parts[i].rows) for hand in dealt]


def passes(trajectories: Sequence[Trajectory], moved_N: Tensor, budget: int, world_size: int) -> list[list[int]]:
    """Rows of each micro-batch, of those that have a gradient (`moved_N` is not zero).

    All ranks must pass equally often, so that where there are several all rows pass, unless none has one anywhere: then
    there is no gradient either, not one of zero, by which optimisers with a memory would go on.
    """
    rows_N = moved_N.nonzero().flatten()
    if world_size > 1 and any(share_objects(len(rows_N) > 0, world_size)):
        rows_N = torch.arange(len(trajectories))
    moving = [trajectories[i] for i in rows_N.tolist()]
    parts = micro_batches(moving, budget, lambda needed: max(share_objects(needed, world_size)))
    return [rows_N[part].tolist() for part in parts]


def deal(sizes: Sequence[int], hands: int) -> list[list[int]]:
    """Items dealt to equally full hands: each, largest first, to the emptiest."""
    dealt: list[list[int]] = [[] for _ in range(hands)]
    full = [0] * hands
    for i in sorted(range(len(sizes)), key=lambda i: -sizes[i]):
        hand = full.index(min(full))
        dealt[hand].append(i)
        full[hand] += sizes[i]
    return dealt


def _tokens(parts: Sequence[Part], hands: int) -> list[list[int]]:
    tokens = [part.tokens for part in parts]
    return [[tokens[i] for i in hand] for hand in deal(tokens, hands)]


def _groups(trajectories: Sequence[Trajectory]) -> list[Part]:
    numbered = groupby(enumerate(trajectories), key=lambda row: id(row[1].turns[0].prompt))
    groups = [list(group) for _, group in numbered]
    return [
        Part(len(group[0][1].turns[0].prompt.ids), tuple(i for i, _ in group), tuple(_length(t) for _, t in group))
        for group in groups
    ]


def _length(trajectory: Trajectory) -> int:
    """Tokens behind the first prompt."""
    replies = sum(len(turn.reply.ids) for turn in trajectory.turns)
    return replies + sum(len(turn.prompt.ids) for turn in trajectory.turns[1:])


def _fitting(group: Part, budget: int) -> list[Part]:
    """The group in as few parts as fit."""
    for n in range(1, len(group.rows)):
        parts = group.split(n)
        if max(part.tokens for part in parts) <= budget:
            return parts
    return group.split(len(group.rows))
