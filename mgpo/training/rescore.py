"""The trainer's own log-probs of replies that an engine has sampled, and how far the two are apart."""

from collections.abc import Sequence

import torch
from torch import Tensor

from mgpo.objective import Objective
from mgpo.policy.base import Policy
from mgpo.policy.passes.logprobs import score_replies
from mgpo.training.step_metrics import PassMetrics, engine_metrics
from mgpo.types import Trajectory


def rescore(
    policy: Policy,
    trajectories: Sequence[Trajectory],
    passes: Sequence[Sequence[int]],
    objective: Objective,
    temperature: float,
) -> PassMetrics:
    """Put the log-probs under the current weights into the turns, in place; how far they are from the sampler's.

    Each of `passes` holds the rows that go through the policy together.
    """
    gaps: list[Tensor] = []
    for trajectory, scores_M in zip(trajectories, score_replies(policy, trajectories, passes, temperature)):
        learnt = [turn for turn in trajectory.turns if turn.learnt]
        for turn, score_M in zip(learnt, scores_M.split([len(turn.reply.ids) for turn in learnt])):
            turn.scored = tuple(score_M.tolist())
            gaps.append(score_M - torch.tensor(turn.reply.logprobs))
    gap_M, metrics = torch.cat(gaps), PassMetrics()
    engine_metrics(metrics, gap_M, torch.ones_like(gap_M, dtype=torch.bool), objective.correction_cap)
    return metrics
