"""Sampler, trainer and the library's own model give the same log-probs, turn by turn."""

from collections import defaultdict

import torch
from torch import Tensor

from mgpo.policy.base import Policy
from mgpo.policy.passes.logprobs import score
from mgpo.tools.doctor.case import Case, Result
from mgpo.tools.doctor.stock import library_positions, plain_logprobs

EXACT = 1e-4  # nats, the largest gap of a token in float32
ROUGH = 0.1  # nats, the mean gap where products are rounded: single tokens may be further apart


def sampler_agrees(case: Case) -> Result:
    """Checks that each sampled token has the log-prob in training under which it was drawn."""
    name, exact = "sampler = trainer", case.sampler.exact
    if not exact and case.sampling.top_p < 1:
        return Result(name, None, "with top_p the engine's log-probs are those of the likeliest tokens alone")
    gaps: defaultdict[int, list[Tensor]] = defaultdict(list)
    for row, ours_M in enumerate(_trained(case)):
        turn_M = case.batch.turn_NC[row][case.batch.policy_NC[row]]
        for k, turn in enumerate(case.scored[row].turns):
            if turn.learnt and len(turn.reply.logprobs) == int((turn_M == k).sum()):
                theirs = torch.tensor(turn.reply.logprobs, device=ours_M.device)
                gaps[k].append((ours_M[turn_M == k] - theirs).abs())
    return _judge(name, gaps, "the sampler's and the trainer's log-probs", is_rough(case.policy) or not exact)


def stock_model_agrees(case: Case) -> Result:
    """The trainer's shared and packed rows score as plain rows through the stock model do."""
    name = "trainer = stock model"
    gaps: defaultdict[int, list[Tensor]] = defaultdict(list)
    for row, ours_M in enumerate(_trained(case)):
        with torch.no_grad():
            plain_M = plain_logprobs(case.policy, case.scored[row], case.sampling.temperature)
        if plain_M is None:
            return Result(name, None, "what this model's own forward pass takes isn't known here")
        if len(plain_M) != len(ours_M):
            return Result(name, False, f"{len(ours_M)} tokens are trained on, but {len(plain_M)} were sampled")
        turn_M = case.batch.turn_NC[row][case.batch.policy_NC[row]]
        for k in turn_M.unique().tolist():
            gaps[k].append((ours_M - plain_M)[turn_M == k].abs())
    what = "the log-probs of the trainer and of a plain pass through the stock model"
    return _judge(name, gaps, what, is_rough(case.policy))


def positions(case: Case) -> Result:
    """Checks that the rotary positions over all turns are those of transformers."""
    name, batch = "positions", case.batch
    for row, trajectory in enumerate(case.scored):
        expected = library_positions(case.policy, trajectory)
        if expected is None:
            return Result(name, None, "the library has no function for this model's positions")
        owner = batch.owner_N[row]
        prefix = batch.prefix_positions_3BP[:, owner][:, batch.prefix_valid_BP[owner]]
        ours = torch.cat([prefix, batch.positions_3NC[:, row][:, batch.valid_NC[row]]], 1)
        if not torch.equal(ours, expected):
            wrong = int((ours != expected).any(0).sum()) if ours.shape == expected.shape else ours.shape[1]
            where = f"{wrong} of {ours.shape[1]} tokens of question {trajectory.question.id}"
            return Result(name, False, f"{where} stand at other positions than the library gives them")
    return Result(name, True, "every token of every turn stands where the library would place it")


def is_rough(policy: Policy) -> bool:
    """Whether anything is computed or held in less than float32, so that equal passes may differ."""
    kind = policy.device.type
    fast = torch.get_float32_matmul_precision() != "highest"
    return fast or torch.is_autocast_enabled(kind) or any(p.dtype != torch.float32 for p in policy.parameters())


@torch.no_grad()
def _trained(case: Case) -> list[Tensor]:
    """Of each row the trainer's log-probs of its learnt tokens."""
    logprobs_NC = score(case.policy, case.batch, case.sampling.temperature).logprobs_NC
    return [row_C[mask_C] for row_C, mask_C in zip(logprobs_NC, case.batch.policy_NC)]


def _judge(name: str, gaps: dict[int, list[Tensor]], what: str, rough: bool) -> Result:
    """The largest gap of each turn, or its mean where products are rounded."""
    if not gaps:
        return Result(name, None, "the sampler gives no log-probs")
    limit, word = (ROUGH, "on average") if rough else (EXACT, "at most")
    by_turn = {k + 1: torch.cat(parts) for k, parts in sorted(gaps.items())}
    sizes = {k: (gap.mean() if rough else gap.max()).item() for k, gap in by_turn.items()}
    turn = max(sizes, key=lambda k: float("inf") if sizes[k] != sizes[k] else sizes[k])
    apart = f"{what} are {sizes[turn]:.2g} nats apart {word}"
    if not sizes[turn] <= limit:
        return Result(name, False, f"{apart} in turn {turn}, where {limit:g} would be rounding")
    return Result(name, True, f"in {len(sizes)} turns {apart}")
