"""Means over a training step and all ranks, and what a training pass shows of itself."""

from collections import defaultdict
from collections.abc import Mapping, Sequence

import torch

from mgpo.objective import Objective
from mgpo.policy.batch import Batch
from mgpo.policy.logprobs import Scores
from mgpo.ranks import share_objects


class Tally:
    """Weighted means of whatever is added."""

    def __init__(self) -> None:
        self.sums: dict[str, list[float]] = defaultdict(lambda: [0.0, 0.0])

    def add(self, metrics: dict[str, float], weight: float) -> None:
        for name, value in metrics.items():
            self.sums[name][0] += value * weight
            self.sums[name][1] += weight

    def add_all(self, values: Mapping[str, Sequence[float]]) -> None:
        """Each value with weight 1; a name without any stays missing."""
        for name, applicable in values.items():
            if applicable:
                self.add({name: sum(applicable) / len(applicable)}, len(applicable))

    def means(self, world_size: int) -> dict[str, float]:
        """Over all ranks, of which each may have other metrics; all must call."""
        merged: dict[str, list[float]] = defaultdict(lambda: [0.0, 0.0])
        for part in share_objects(dict(self.sums), world_size):
            for name, (total, weight) in part.items():
                merged[name][0] += total
                merged[name][1] += weight
        return {name: total / weight for name, (total, weight) in sorted(merged.items())}


@torch.no_grad()
def score_metrics(batch: Batch, scores: Scores, objective: Objective) -> dict[str, float]:
    """Of a training pass: clip fraction, entropy in nats by turn, and the largest gap to the sampler's log-probs.

    At the first update of a step the gap is zero but for rounding.
    """
    mask_NC, old_NC = batch.policy_NC, batch.old_logprobs_NC
    metrics = {
        "clip_fraction": objective.clip_fraction(scores.logprobs_NC, old_NC, mask_NC).item(),
        "sampler_gap": (scores.logprobs_NC - batch.sampled_logprobs_NC)[mask_NC].abs().max().item(),
    }
    for k in range(int(batch.turn_NC.max()) + 1):
        turn_NC = mask_NC & (batch.turn_NC == k)
        if turn_NC.any() and not scores.entropy_NC[turn_NC].isnan().any():  # a fused head does not know them
            metrics[f"entropy_turn{k + 1}"] = scores.entropy_NC[turn_NC].mean().item()
    return metrics
