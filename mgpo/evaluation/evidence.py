"""How much the right answer rests on what was cut out: the evidence margin.

Shapes: N trajectories, C tokens.
"""

from collections.abc import Sequence
from dataclasses import replace

import torch
from PIL import Image
from torch import Tensor

from mgpo.images.views import View
from mgpo.policy.base import Policy, evaluating
from mgpo.policy.passes.batch import collate
from mgpo.policy.passes.logprobs import score
from mgpo.policy.passes.micro_batches import passes
from mgpo.rollout.episodes import force_answers
from mgpo.types import Pixels, Trajectory


@torch.no_grad()
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
    pairs = [twin for t in trajectories for twin in (_blackened(policy, t, ()), _blackened(policy, t, t.crops))]
    likelihoods_N2 = _likelihoods(policy, pairs, answer_form, micro_batch_tokens, world_size).view(-1, 2)
    seen_N, unseen_N = likelihoods_N2.unbind(1)
    looked_N = torch.tensor([bool(trajectory.crops) for trajectory in trajectories])
    return torch.where(looked_N, seen_N - unseen_N, 0.0)


@torch.no_grad()
def margins_by_look(
    policy: Policy, trajectories: Sequence[Trajectory], answer_form: str, micro_batch_tokens: int = 16384
) -> list[list[float]]:
    """The evidence margin of every crop of each trajectory, in order: with that one black, and the others as they are.

    The arguments are those of `evidence_margins`.
    """
    variants = [_blackened(policy, t, crops) for t in trajectories for crops in ((), *((crop,) for crop in t.crops))]
    left = _likelihoods(policy, variants, answer_form, micro_batch_tokens, 1).tolist()
    margins: list[list[float]] = []
    for trajectory in trajectories:
        (seen, *unseen), left = left[: 1 + len(trajectory.crops)], left[1 + len(trajectory.crops) :]
        margins.append([seen - value for value in unseen])
    return margins


def _likelihoods(
    policy: Policy, trajectories: Sequence[Trajectory], answer_form: str, micro_batch_tokens: int, world_size: int
) -> Tensor:
    """Log-probs of the right answers, put in place of the last replies: (N,)."""
    force_answers(policy, trajectories, answer_form)
    likelihoods_N = torch.zeros(len(trajectories))
    with evaluating(policy):
        for rows in passes(trajectories, torch.ones(len(trajectories)), micro_batch_tokens, world_size):
            batch = collate([trajectories[i] for i in rows], policy.positions, policy.pad_id).to(policy.device)
            likelihoods_N[rows] = policy(score, batch).logprobs_NC.sum(1).float().cpu()
    return likelihoods_N


def _blackened(policy: Policy, trajectory: Trajectory, crops: Sequence[View]) -> Trajectory:
    """A copy of a trajectory in which these of its crops are black; pictures shown whole stay."""
    black: dict[int, Pixels] = {}
    looks = [after.prompt for turn, after in zip(trajectory.turns, trajectory.turns[1:]) if turn.action == "look"]
    for prompt, view in zip(looks, trajectory.crops):
        if any(view is crop for crop in crops):
            black |= {id(image): policy.pixels(Image.new("RGB", view.size)) for image in prompt.images}
    first, *later = trajectory.turns
    blackened = [
        replace(turn, prompt=replace(turn.prompt, images=tuple(black.get(id(i), i) for i in turn.prompt.images)))
        for turn in later
    ]
    return replace(trajectory, turns=[replace(first), *blackened])
