"""The same conversation through the library's own model: one unpadded row, its own positions and masks.

Sampler and trainer place tokens by the same `policy.positions`, so they would agree on wrong ones.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from mgpo.policy.base import Policy
from mgpo.tools.doctor.tokens import whole_ids
from mgpo.types import Trajectory, Turn, conversations


def plain_logprobs(policy: Policy, trajectory: Trajectory, temperature: float) -> Tensor | None:
    """The learnt tokens' log-probs (M,) in order, by the stock model; None where it isn't known what that takes."""
    scored = [_score(policy, turns, temperature) for turns in conversations(trajectory.turns)]
    known = [logprobs_M for logprobs_M in scored if logprobs_M is not None]
    return torch.cat(known) if len(known) == len(scored) else None


def _score(policy: Policy, turns: Sequence[Turn], temperature: float) -> Tensor | None:
    """The same of one conversation."""
    inputs = _inputs(policy, turns)
    if inputs is None:
        return None
    at = torch.tensor(_learnt(turns), dtype=torch.long, device=policy.device)
    inner = policy.model.model
    before = getattr(inner, "rope_deltas", None)
    if hasattr(inner, "rope_deltas"):
        inner.rope_deltas = None  # of whatever conversation came before
    logits_MV = policy.model(**inputs, use_cache=False, logits_to_keep=at - 1).logits[0]
    if hasattr(inner, "rope_deltas"):
        inner.rope_deltas = before
    logits_MV = logits_MV.float().masked_fill(policy.banned, -torch.inf) / temperature
    chosen_M = logits_MV.gather(-1, inputs["input_ids"][0, at, None])[:, 0]
    return chosen_M - logits_MV.logsumexp(-1)  # log_softmax loses 1e-4 nats of a vocabulary of 152,000


def library_positions(policy: Policy, trajectory: Trajectory) -> Tensor | None:
    """Positions (3, tokens) of all conversations, by transformers; None where it isn't known what it takes."""
    placed = [_place(policy, turns) for turns in conversations(trajectory.turns)]
    known = [positions_3T for positions_3T in placed if positions_3T is not None]
    return torch.cat(known, 1) if len(known) == len(placed) else None


def _place(policy: Policy, turns: Sequence[Turn]) -> Tensor | None:
    """The same of one conversation."""
    inputs = _inputs(policy, turns)
    if inputs is None:
        return None
    index = getattr(policy.model.model, "get_rope_index", None)
    if index is None:
        return torch.arange(inputs["input_ids"].shape[1], device=policy.device).expand(3, -1)
    names = ("input_ids", "mm_token_type_ids", "image_grid_thw")
    return index(**{name: inputs[name] for name in names if name in inputs})[0][:, 0]


def _inputs(policy: Policy, turns: Sequence[Turn]) -> dict[str, Any] | None:
    """What the stock model takes, as the family says."""
    images = [image for turn in turns for image in turn.prompt.images]
    ids = torch.tensor([whole_ids(turns)], device=policy.device)
    shown = policy.stock_inputs(images, ids == policy.chat.image_id)
    if shown is None:
        return None
    kind = policy.model.dtype
    return dict(input_ids=ids) | {name: x.to(kind) if x.is_floating_point() else x for name, x in shown.items()}


def _learnt(turns: Sequence[Turn]) -> list[int]:
    """Places of the learnt tokens in the conversation."""
    places: list[int] = []
    at = 0
    for turn in turns:
        start = at + len(turn.prompt.ids)
        at = start + len(turn.reply.ids)
        places += range(start, at) if turn.learnt else ()
    return places
