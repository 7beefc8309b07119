"""The trainer's own log-probs of replies that an engine has sampled, and how far the two are apart."""

from collections.abc import Sequence

import torch
from torch import Tensor

from mgpo.objective import Objective
from mgpo.policy.base import Policy
from mgpo.policy.passes.batch import collate
from mgpo.policy.passes.logprobs import score
from mgpo.types import Trajectory


@torch.no_grad()
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
    for rows in passes:
        part = [trajectories[i] for i in rows]
        batch = collate(part, policy.positions, policy.pad_id).to(policy.device)
        scores_NC = policy(score, batch, temperature).logprobs_NC
        gaps.append((scores_NC - batch.sampled_logprobs_NC)[batch.policy_NC].cpu())
        for trajectory, row_C, mask_C in zip(part, scores_NC, batch.policy_NC):
            learnt = [turn for turn in trajectory.turns if turn.learnt]
            values = row_C[mask_C].cpu().split([len(turn.reply.ids) for turn in learnt])
            for turn, value in zip(learnt, values):
                turn.scored = tuple(value.tolist())
    gap_M = torch.cat(gaps)
    cap = objective.correction_cap
    truncated = 0.0 if cap is None else (gap_M.exp() > cap).float().mean().item()
    return {
        "engine_gap": gap_M.abs().mean().item(),
        "engine_gap_max": gap_M.abs().max().item(),
        "engine_truncated": truncated,
    }
