"""What a training step shows of itself; none of it needs a right box."""

from collections.abc import Sequence

import torch
from torch import Tensor

from mgpo.objective import clip_fraction, has_signal
from mgpo.policy.batch import Batch
from mgpo.policy.logprobs import Scores
from mgpo.types import Trajectory


def rollout_metrics(trajectories: Sequence[Trajectory], rewards_BG: Tensor) -> dict[str, float]:
    """Of a step's rollouts: mean reward, shares in [0, 1], and reply lengths in tokens by turn.

    `valid_box` is over the rollouts that were asked for a box, and missing where none was.
    """
    n = len(trajectories)
    metrics = {
        "reward": rewards_BG.mean().item(),
        "right": sum(t.right for t in trajectories) / n,
        "crop_rate": sum(bool(t.crops) for t in trajectories) / n,
        "unfinished": sum(t.unfinished for t in trajectories) / n,
        "no_signal": 1 - has_signal(rewards_BG).float().mean().item(),
        "answered": sum(t.answer is not None for t in trajectories) / n,
        "cut": sum(t.cut for t in trajectories) / n,
    }
    findings = [t.finding for t in trajectories if t.finding is not None]
    if findings:
        metrics["valid_box"] = sum(finding.box is not None for finding in findings) / len(findings)
    for k in range(max(len(t.turns) for t in trajectories)):
        lengths = [len(t.turns[k].reply.ids) for t in trajectories if len(t.turns) > k]
        metrics[f"length_turn{k + 1}"] = sum(lengths) / len(lengths)
    return metrics


@torch.no_grad()
def score_metrics(batch: Batch, scores: Scores, clip_low: float, clip_high: float) -> dict[str, float]:
    """Of a training pass: clip fraction, entropy in nats by turn, and the largest gap to the sampler's log-probs.

    At the first update of a step the gap is zero but for rounding.
    """
    mask_NC, old_NC = batch.policy_NC, batch.sampled_logprobs_NC
    metrics = {
        "clip_fraction": clip_fraction(scores.logprobs_NC, old_NC, mask_NC, clip_low, clip_high).item(),
        "sampler_gap": (scores.logprobs_NC - old_NC)[mask_NC].abs().max().item(),
    }
    for k in range(int(batch.turn_NC.max()) + 1):
        turn_NC = mask_NC & (batch.turn_NC == k)
        if turn_NC.any():
            metrics[f"entropy_turn{k + 1}"] = scores.entropy_NC[turn_NC].mean().item()
    return metrics
