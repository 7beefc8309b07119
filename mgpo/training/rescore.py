"""The trainer's own log-probs of replies that an engine has sampled, and how far the two are apart."""

from collections.abc import Sequence

import torch
from torch import Tensor

from mgpo.objective import Objective
from mgpo.policy.base import Policy
from mgpo.policy.passes.logprobs import score_replies
from mgpo.types import Trajectory


def rescore(
    policy: Policy,
    trajectories: Sequence[Trajectory],
    passes: Sequence[Sequence[int]],
    objective: Objective,
    temperature: float,
) -> dict[str, float]:
    """Put the log-probs under the current weights into the turns, in place; how far they are from the sampler's.

    Each of `passes` holds the rows that go through the policy together.

    Returns:
        `engine_gap`, the mean absolute difference of a token's log-probs in nats, `engine_gap_max`, and
        `engine_truncated`, the share of tokens whose weight the objective cuts.
    """
    gaps: list[Tensor] = []
    for trajectory, scores_M in zip(trajectories, score_replies(policy, trajectories, passes, temperature)):
        learnt = [turn for turn in trajectory.turns if turn.learnt]
        for turn, score_M in zip(learnt, scores_M.split([len(turn.reply.ids) for turn in learnt])):
            turn.scored = tuple(score_M.tolist())
            gaps.append(score_M - torch.tensor(turn.reply.logprobs))
    gap_M = torch.cat(gaps)
    cap = objective.correction_cap
    truncated = 0.0 if cap is None else (gap_M.exp() > cap).float().mean().item()
    return {
        "engine_gap": gap_M.abs().mean().item(),
        "engine_gap_max": gap_M.abs().max().item(),
        "engine_truncated": truncated,
    }
