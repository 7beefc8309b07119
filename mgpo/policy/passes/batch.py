"""Trajectories as tensors for one training pass, with every group's common prompt held once.

Shapes: B distinct first prompts, N trajectories, P prompt tokens, C continuation tokens. A
continuation begins with the prompt's last token, so that the log-prob of the first sampled token
comes from the same row as all others. Where a dialogue begins anew its conversations stay in one row here, but a token
sees those of its own alone.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from functools import cached_property
from itertools import groupby

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from mgpo.policy.passes.packing import Packing
from mgpo.types import Pixels, Prompt, Trajectory, conversations
from mgpo.utils.allocator import moved

# (prompt, first position) -> positions (3, tokens) and the position that follows
Positions = Callable[[Prompt, int], tuple[Tensor, int]]


@dataclass
class Batch:
    """One padded micro-batch. `policy_NC` is true exactly where an id was sampled by the policy and is learnt from."""

    prefix_ids_BP: Tensor
    prefix_positions_3BP: Tensor
    prefix_valid_BP: Tensor
    ids_NC: Tensor
    positions_3NC: Tensor
    valid_NC: Tensor
    policy_NC: Tensor
    turn_NC: Tensor
    sampled_logprobs_NC: Tensor
    old_logprobs_NC: Tensor  # by the trainer, before the step's updates
    owner_N: Tensor  # which prefix a trajectory continues
    conversation_NC: Tensor  # which of its trajectory's a token is in; the first, 0, continues the prefix
    images: list[Pixels]  # those of the prefixes, row by row, of the continuations, and of what begins anew

    @cached_property
    def fed_NC(self) -> Tensor:
        """Which continuation tokens the decoder has to see: all but each conversation's last, from which nothing is
        drawn."""
        goes_on_NC = self.valid_NC.roll(-1, 1) & (self.conversation_NC == self.conversation_NC.roll(-1, 1))
        return self.valid_NC & goes_on_NC.index_fill(1, torch.tensor([-1], device=self.valid_NC.device), False)

    @cached_property
    def anew_NC(self) -> Tensor:
        """Which tokens are in a conversation that began anew, so that they see no prefix."""
        return self.conversation_NC > 0

    @cached_property
    def turns(self) -> int:
        """Turns of the longest dialogue."""
        return int(self.turn_NC.max()) + 1

    @cached_property
    def sampled_M(self) -> Tensor:
        """Places of the policy's tokens among all (N, C), row by row."""
        return self.policy_NC.flatten().nonzero().squeeze(1)

    @cached_property
    def sequence_4T(self) -> Tensor:
        """Ids and, behind them, positions of the tokens of the packing, in its order."""
        fed = [self.fed_NC & ~self.anew_NC, self.fed_NC & self.anew_NC]
        prefixes = torch.cat([self.prefix_ids_BP[None], self.prefix_positions_3BP])[:, self.prefix_valid_BP]
        rows_4NC = torch.cat([self.ids_NC[None], self.positions_3NC])
        return torch.cat([prefixes, *(rows_4NC[:, part_NC] for part_NC in fed)], 1)

    @cached_property
    def sequence_ids(self) -> list[int]:
        """The ids alone, on the host."""
        return self.sequence_4T[0].tolist()

    @cached_property
    def packing(self) -> Packing:
        """The prompts one after the other, then the fed tokens of all rows, those behind no prefix last; asked are
        those before a policy token, row by row."""
        lengths = zip(self.owner_N.tolist(), (self.fed_NC & ~self.anew_NC).sum(1).tolist())
        rows = [[length for _, length in group] for _, group in groupby(lengths, key=lambda row: row[0])]
        prompts = self.prefix_valid_BP.sum(1).tolist()
        place_F = self.anew_NC[self.fed_NC].int().argsort(stable=True).argsort() + sum(prompts)
        asked_M = place_F[self.policy_NC.roll(-1, 1)[self.fed_NC]]
        anew = self.lengths_anew(self.fed_NC)
        return Packing(prompts, rows, asked_M.tolist(), self.valid_NC.device, anew)

    def lengths_anew(self, chosen_NC: Tensor) -> list[int]:
        """Of these tokens, how many are in each conversation that began anew, row by row."""
        numbers = range(1, int(self.conversation_NC.max()) + 1)
        lengths = [(chosen_NC & (self.conversation_NC == number)).sum(1).tolist() for number in numbers]
        return [length for row in zip(*lengths) for length in row if length]

    def to(self, device: torch.device) -> "Batch":
        """A batch whose tensors lie on a device; the images stay where they are."""
        held = {field.name: getattr(self, field.name) for field in fields(self)}
        there = replace(self, **{name: moved(x, device) for name, x in held.items() if isinstance(x, Tensor)})
        # What has to be counted is counted here: there every number would be waited for.
        there.packing = replace(self.packing, device=device)
        there.turns, there.sequence_ids = self.turns, self.sequence_ids
        there.sampled_M, there.sequence_4T = moved(self.sampled_M, device), moved(self.sequence_4T, device)
        return there


def collate(trajectories: Sequence[Trajectory], positions: Positions, pad_id: int) -> Batch:
    """Lay out whole trajectories; text and images of a turn stay together, nothing is cut.

    Raises:
        ValueError: If trajectories with the same prompt are not next to each other.
    """
    prompts = [t.turns[0].prompt for t in trajectories]
    prompts = [prompt for prompt, before in zip(prompts, [None, *prompts]) if prompt is not before]
    number = {id(prompt): i for i, prompt in enumerate(prompts)}
    if len(number) < len(prompts):
        raise ValueError("the trajectories of a group have to be next to each other")
    prefixes = [Prompt(prompt.ids[:-1], prompt.images) for prompt in prompts]
    placed = [positions(prefix, 0) for prefix in prefixes]
    rows = [_continuation(t, placed[number[id(t.turns[0].prompt)]][1], positions) for t in trajectories]
    images = [image for prefix in prefixes for image in prefix.images]
    parts = [conversations(t.turns) for t in trajectories]
    images += [image for first, *_ in parts for turn in first[1:] for image in turn.prompt.images]
    images += [image for _, *anew in parts for turns in anew for turn in turns for image in turn.prompt.images]
    prefix_ids = [torch.tensor(prefix.ids) for prefix in prefixes]
    return Batch(
        prefix_ids_BP=pad_sequence(prefix_ids, True, pad_id),
        prefix_positions_3BP=_pad_positions([p for p, _ in placed]),
        prefix_valid_BP=_valid(prefix_ids),
        ids_NC=pad_sequence([row.ids for row in rows], True, pad_id),
        positions_3NC=_pad_positions([row.positions for row in rows]),
        valid_NC=_valid([row.ids for row in rows]),
        policy_NC=pad_sequence([row.policy for row in rows], True, False),
        turn_NC=pad_sequence([row.turn for row in rows], True, 0),
        sampled_logprobs_NC=pad_sequence([row.logprobs for row in rows], True, 0.0),
        old_logprobs_NC=pad_sequence([row.old for row in rows], True, 0.0),
        owner_N=torch.tensor([number[id(t.turns[0].prompt)] for t in trajectories]),
        conversation_NC=pad_sequence([row.conversation for row in rows], True, 0),
        images=images,
    )


@dataclass
class _Row:
    ids: Tensor
    positions: Tensor
    policy: Tensor
    turn: Tensor
    logprobs: Tensor
    old: Tensor
    conversation: Tensor


def _continuation(trajectory: Trajectory, start: int, positions: Positions) -> _Row:
    """Everything behind the prefix: shown tokens and sampled tokens in turn, with the mask of the latter.

    Positions count from 0 again where a conversation begins anew.
    """
    ids: list[int] = []
    places: list[Tensor] = []
    policy: list[bool] = []
    turns: list[int] = []
    logprobs: list[float] = []
    old: list[float] = []
    conversation: list[int] = []
    for k, turn in enumerate(trajectory.turns):
        shown = turn.prompt if k else Prompt(turn.prompt.ids[-1:])
        number = conversation[-1] if k else 0
        if shown.fresh:
            number, start = number + 1, 0
        for piece, sampled in ((shown, False), (Prompt(turn.reply.ids), True)):
            place, start = positions(piece, start)
            places.append(place)
            ids += piece.ids
            policy += [sampled and turn.learnt] * len(piece.ids)
            turns += [k] * len(piece.ids)
            conversation += [number] * len(piece.ids)
            logprobs += turn.reply.logprobs if sampled else [0.0] * len(piece.ids)
            old += (turn.scored or turn.reply.logprobs) if sampled else [0.0] * len(piece.ids)
    return _Row(
        torch.tensor(ids), torch.cat(places, 1), torch.tensor(policy), torch.tensor(turns), torch.tensor(logprobs),
        torch.tensor(old), torch.tensor(conversation),
    )  # fmt: skip


def _valid(rows: list[Tensor]) -> Tensor:
    return pad_sequence([torch.ones(len(row), dtype=torch.bool) for row in rows], True, False)


def _pad_positions(rows: list[Tensor]) -> Tensor:
    return pad_sequence([row.T for row in rows], True, 0).permute(2, 0, 1)
