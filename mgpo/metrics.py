"""What a training step shows of itself; none of it needs a right box."""

from collections import defaultdict
from collections.abc import Sequence

import torch

from mgpo.objective import Objective
from mgpo.policy.batch import Batch
from mgpo.policy.logprobs import Scores
from mgpo.ranks import share_objects
from mgpo.types import Trajectory


class Tally:
    """Weighted means of whatever is added."""

    def __init__(self) -> None:
        self.sums: dict[str, list[float]] = defaultdict(lambda: [0.0, 0.0])

    def add(self, metrics: dict[str, float], weight: float) -> None:
        for name, value in metrics.items():
            self.sums[name][0] += value * weight
            self.sums[name][1] += weight

    def means(self, world_size: int) -> dict[str, float]:
        """Over all ranks, of which each may have other metrics; all must call."""
        merged: dict[str, list[float]] = defaultdict(lambda: [0.0, 0.0])
        for part in share_objects(dict(self.sums), world_size):
            for name, (total, weight) in part.items():
                merged[name][0] += total
                merged[name][1] += weight
        return {name: total / weight for name, (total, weight) in sorted(merged.items())}


def rollout_metrics(trajectories: Sequence[Trajectory]) -> dict[str, float]:
    """Of a step's rollouts: mean reward, shares in [0, 1], and reply lengths in tokens by turn.

    `valid_box` is over the rollouts in which a box was looked for, and missing where there were none.
    """
    n = len(trajectories)
    metrics = {
        "reward": sum(t.reward for t in trajectories) / n,
        "right": sum(t.right for t in trajectories) / n,
        "crop_rate": sum(bool(t.crops) for t in trajectories) / n,
        "unfinished": sum(t.unfinished for t in trajectories) / n,
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
def score_metrics(batch: Batch, scores: Scores, objective: Objective) -> dict[str, float]:
    """Of a training pass: clip fraction, entropy in nats by turn, and the largest gap to the sampler's log-probs.

    At the first update of a step the gap is zero but for rounding.
    """
    mask_NC, old_NC = batch.policy_NC, batch.sampled_logprobs_NC
    metrics = {
        "clip_fraction": objective.clip_fraction(scores.logprobs_NC, old_NC, mask_NC).item(),
        "sampler_gap": (scores.logprobs_NC - old_NC)[mask_NC].abs().max().item(),
    }
    for k in range(int(batch.turn_NC.max()) + 1):
        turn_NC = mask_NC & (batch.turn_NC == k)
        if turn_NC.any():
            metrics[f"entropy_turn{k + 1}"] = scores.entropy_NC[turn_NC].mean().item()
    return metrics
