"""Means over a training step and all ranks, and what a training pass shows of itself."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from mgpo.metrics import values
from mgpo.metrics.record import Record
from mgpo.objective import Objective
from mgpo.policy.passes.batch import Batch
from mgpo.policy.passes.logprobs import Scores
from mgpo.utils.collectives import share_objects

EPISODE = {
    "reward": values.reward,
    "right": values.right,
    "crop_rate": values.crop,
    "unfinished": values.unfinished,
    "answered": values.answered,
    "cut": values.cut,
    "valid_box": values.valid_box,
    "clipped_box": values.clipped_box,
    "zoom": values.zoom,
    "area": values.area,
    "fallback": values.fallback,
    "turns": values.turns,
}


@dataclass
class PassMetrics:
    """What one training pass adds to a step: by name sums and how many tokens they are of, and largest values."""

    sums: dict[str, tuple[float, int]] = field(default_factory=dict)
    largest: dict[str, float] = field(default_factory=dict)

    def add(self, name: str, values_NC: Tensor, mask_NC: Tensor) -> None:
        """The values of these tokens, if there are any."""
        if count := int(mask_NC.sum()):
            self.sums[name] = values_NC[mask_NC].sum(dtype=torch.float64).item(), count


class Tally:
    """Weighted means and maxima of whatever is added."""

    def __init__(self) -> None:
        self.sums: dict[str, list[float]] = defaultdict(lambda: [0.0, 0.0])
        self.largest: dict[str, float] = {}

    def add(self, metrics: dict[str, float], weight: float) -> None:
        """Add values by name, each with the same weight in its mean."""
        for name, value in metrics.items():
            self._sum(name, value * weight, weight)

    def add_all(self, values: Mapping[str, Sequence[float]]) -> None:
        """Each value with weight 1; a name without any stays missing."""
        for name, applicable in values.items():
            if applicable:
                self._sum(name, sum(applicable), len(applicable))

    def add_pass(self, metrics: PassMetrics) -> None:
        """Tokens of all passes count the same, however they were dealt out."""
        for name, (total, count) in metrics.sums.items():
            self._sum(name, total, count)
        for name, value in metrics.largest.items():
            self.largest[name] = max(value, self.largest.get(name, value))

    def _sum(self, name: str, total: float, weight: float) -> None:
        self.sums[name][0] += total
        self.sums[name][1] += weight

    def over_ranks(self, world_size: int) -> dict[str, float]:
        """Means and maxima over all ranks, of which each may have other metrics; all must call."""
        merged = Tally()
        for sums, largest in share_objects((dict(self.sums), self.largest), world_size):
            for name, (total, weight) in sums.items():
                merged._sum(name, total, weight)
            merged.add_pass(PassMetrics(largest=largest))
        means = {name: total / weight for name, (total, weight) in merged.sums.items()}
        return dict(sorted((means | merged.largest).items()))


@torch.no_grad()
def score_metrics(batch: Batch, scores: Scores, objective: Objective, moved_N: Tensor) -> PassMetrics:
    """Of the policy tokens of rollouts with an advantage (`moved_N`), whichever else pass: clip fraction, entropy in
    nats by turn, and the largest gap to the sampler's log-probs.

    At the first update of a step the gap is zero but for rounding.
    """
    shown = PassMetrics()
    mask_NC = batch.policy_NC & moved_N[:, None]
    if not mask_NC.any():
        return shown
    clipped_NC = objective.clipped(scores.logprobs_NC, batch.old_logprobs_NC, batch.policy_NC)
    shown.add("clip_fraction", clipped_NC.float(), mask_NC)
    shown.largest["sampler_gap"] = (scores.logprobs_NC - batch.sampled_logprobs_NC)[mask_NC].abs().max().item()
    for k in range(int(batch.turn_NC.max()) + 1):
        turn_NC = mask_NC & (batch.turn_NC == k)
        if not scores.entropy_NC[turn_NC].isnan().any():  # a fused head does not know them
            shown.add(f"entropy_turn{k + 1}", scores.entropy_NC, turn_NC)
    return shown


def rollout_metrics(records: Sequence[Record], group_size: int) -> dict[str, list[float]]:
    """By name the values of the episodes or groups to which they apply; their means are what is shown.

    Of episodes: reward, shares in [0, 1], zoom, reply lengths in tokens by turn, right answers by source. Of groups,
    `group_size` records next to each other: how far boxes agree, the spread of rewards, whether any is right (`pass`),
    and whether the commonest answer is (`majority`).
    """
    metrics = {name: values.applicable(of, records) for name, of in EPISODE.items()}
    for k in range(max(record.turns for record in records)):
        metrics[f"length_turn{k + 1}"] = [float(r.lengths[k]) for r in records if r.turns > k]
    for name in {record.source for record in records} - {""}:
        metrics[f"right/{name}"] = [values.right(r) for r in records if r.source == name]
    groups = [records[i : i + group_size] for i in range(0, len(records), group_size)]
    of_groups = {
        "agreement": [values.agreement(group) for group in groups],
        "reward_spread": [values.reward_spread(group) for group in groups],
        "pass": [values.pass_at_k(group, group_size) for group in groups],
        "majority": [values.majority_at_k(group, group_size) for group in groups],
    }
    return metrics | {name: [v for v in found if v is not None] for name, found in of_groups.items()}
