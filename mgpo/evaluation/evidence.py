"""How much the right answer rests on what was cut out: the evidence margin.

Shapes: N trajectories, C tokens.
"""

from collections.abc import Container, Sequence
from dataclasses import replace

import torch
from PIL import Image
from torch import Tensor

from mgpo.policy.base import Policy, evaluating
from mgpo.policy.passes.logprobs import score_replies
from mgpo.policy.passes.micro_batches import passes
from mgpo.rollout.episodes import force_answers
from mgpo.types import Trajectory


def evidence_margins(
    policy: Policy,
    trajectories: Sequence[Trajectory],
    answer_form: str,
    micro_batch_tokens: int = 16384,
    world_size: int = 1,
) -> Tensor:
    """By how many nats the crops make the right answer likelier than black pictures in their place would: (N,).

    margin_n = log π(y | h_n) - log π(y | h'_n), where y is the right answer in `answer_form`, h_n all that was shown
    and sampled before the last reply, and h'_n the same with every crop black. It is 0 for a policy that ignores its
    crops, and exactly 0 where nothing was cut out. Both sides go through the policy together, behind one and the same
    first prompt.

    Args:
        policy: Scores under its current weights, in evaluation mode.
        trajectories: Rollouts that have turns, a question's next to each other.
        answer_form: The reply in whose place the answer stands; slot {answer}.
        micro_batch_tokens: Tokens in one pass, a shared prompt counted once.
        world_size: Processes, all of which must call with equally many trajectories where weights are sharded.
    """
    sides = [_blackened(policy, t, looks) for t in trajectories for looks in ((), range(len(t.turns)))]
    likelihoods_N = _likelihoods(policy, sides, answer_form, micro_batch_tokens, world_size)
    seen_N, unseen_N = likelihoods_N.view(-1, 2).unbind(1)
    looked_N = torch.tensor([bool(trajectory.crops) for trajectory in trajectories])
    return torch.where(looked_N, seen_N - unseen_N, 0.0)


def margins_by_look(
    policy: Policy, trajectories: Sequence[Trajectory], answer_form: str, micro_batch_tokens: int = 16384
) -> list[list[float]]:
    """The evidence margin of every crop of each trajectory, in order: with that one black, and the others as they are.

    The arguments are those of `evidence_margins`.
    """
    sides = [_blackened(policy, t, looks) for t in trajectories for looks in ((), *((k,) for k in range(len(t.crops))))]
    likelihoods = iter(_likelihoods(policy, sides, answer_form, micro_batch_tokens, world_size=1).tolist())
    margins: list[list[float]] = []
    for trajectory in trajectories:
        seen = next(likelihoods)
        margins.append([seen - next(likelihoods) for _ in trajectory.crops])
    return margins


def look_margins(
    policy: Policy, trajectories: Sequence[Trajectory], answer_form: str, micro_batch_tokens: int = 16384
) -> list[list[float]]:
    """What each look adds to the evidence margin of its trajectory: a number for every reply but the last.

    margin_nk = log π(y | h_nk) - log π(y | h_n,k-1), with y as for `evidence_margins` and h_nk all that was shown and
    sampled before the last reply, but with the crops of all looks behind the k-th black. They add up to the evidence
    margin; a look at what was seen before adds nothing. It is 0 where no crop followed. Only trajectories with a crop
    pass.

    Args:
        policy: Scores under its current weights, in evaluation mode; whole where weights are sharded.
        trajectories: Rollouts that have turns, a question's next to each other.
        answer_form: The reply in whose place the answer stands; slot {answer}.
        micro_batch_tokens: Tokens in one pass, a shared prompt counted once.
    """
    looks = [[turn.action == "look" for turn in t.turns[:-1]] for t in trajectories]
    sides = [
        _blackened(policy, t, range(shown, sum(looked)))
        for t, looked in zip(trajectories, looks)
        if any(looked)
        for shown in range(sum(looked) + 1)
    ]
    likelihoods = iter(_likelihoods(policy, sides, answer_form, micro_batch_tokens, world_size=1).tolist())
    margins = []
    for looked in looks:
        last = next(likelihoods) if any(looked) else 0.0
        margins.append([])
        for look in looked:
            before, last = last, next(likelihoods) if look else last
            margins[-1].append(last - before)
    return margins


def _likelihoods(
    policy: Policy, trajectories: list[Trajectory], answer_form: str, micro_batch_tokens: int, world_size: int
) -> Tensor:
    """The log-probs (N,) of the right answers, forced into the last replies in place."""
    force_answers(policy, trajectories, answer_form)
    rows = passes(trajectories, torch.ones(len(trajectories)), micro_batch_tokens, world_size)
    with evaluating(policy):
        return torch.tensor([scores_M.sum().item() for scores_M in score_replies(policy, trajectories, rows)])


def _blackened(policy: Policy, trajectory: Trajectory, looks: Container[int]) -> Trajectory:
    """A copy of a trajectory in which the crops of these looks, from 0, are black; pictures shown whole stay.

    Behind a refused look the crop before it may be shown again.
    """
    look, turns = -1, [replace(trajectory.turns[0])]
    for before, turn in zip(trajectory.turns, trajectory.turns[1:]):
        look += before.action == "look"
        prompt = turn.prompt
        if look in looks:
            black = policy.pixels(Image.new("RGB", trajectory.crops[look].size))
            prompt = replace(prompt, images=(black,) * len(prompt.images))
        turns.append(replace(turn, prompt=prompt))
    return replace(trajectory, turns=turns)
