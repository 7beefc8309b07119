"""Means over a training step and all ranks, and what a training pass shows of itself."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import exp, log

import torch
from torch import Tensor

from mgpo.metrics import values
from mgpo.metrics.record import Record
from mgpo.objective import Objective
from mgpo.policy.passes.batch import Batch
from mgpo.policy.passes.logprobs import Scores
from mgpo.utils.collectives import share_objects

EPISODE = {  # the fields of a record, under the names that an evaluation has for the same
    "reward": "reward",
    "accuracy": "right",
    "crop_rate": "cropped",
    "unfinished": "unfinished",
    "answered": "answered",
    "cut": "cut",
    "valid_box_ratio": "valid_box",
    "clipped_box_ratio": "clipped",
    "zoom_factor": "zoom",
    "crop_area_share": "area",
    "fallback_rate": "fallback",
    "turns": "turns",
}
GEOMETRIC = ("zoom_factor",)  # whose mean is that of the logarithms, as in an evaluation


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
    """Weighted means and maxima of whatever is added; geometric means of what is a factor."""

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
                self._sum(name, sum(map(log, applicable) if name in GEOMETRIC else applicable), len(applicable))

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
        means |= {name: exp(means[name]) for name in GEOMETRIC if name in means}
        return dict(sorted((means | merged.largest).items()))


@torch.no_grad()
def score_metrics(batch: Batch, old_NC: Tensor, scores: Scores, objective: Objective, moved_N: Tensor) -> PassMetrics:
    """Of the policy tokens of rollouts with an advantage (`moved_N`), whichever else pass: clip fraction, entropy in
    nats by turn, and the largest gap to the sampler's log-probs.

    At the first update of a step the gap is zero but for rounding.
    """
    shown = PassMetrics()
    mask_NC = batch.policy_NC & moved_N[:, None]
    if not mask_NC.any():
        return shown
    clipped_NC = objective.clipped(scores.logprobs_NC, old_NC, batch.policy_NC)
    shown.add("clip_fraction", clipped_NC.float(), mask_NC)
    shown.largest["sampler_gap"] = (scores.logprobs_NC - batch.sampled_logprobs_NC)[mask_NC].abs().max().item()
    for k in range(int(batch.turn_NC.max()) + 1):
        turn_NC = mask_NC & (batch.turn_NC == k)
        if not scores.entropy_NC[turn_NC].isnan().any():  # a fused head does not know them
            shown.add(f"entropy_turn{k + 1}", scores.entropy_NC, turn_NC)
    return shown


def engine_metrics(metrics: PassMetrics, gap_NC: Tensor, mask_NC: Tensor, cap: float | None) -> None:
    """Add how far the trainer's log-probs of these tokens are from those under which an engine drew them, in nats.

    That is `engine_gap`, the mean absolute difference, `engine_gap_max`, and `engine_truncated`, the share of tokens
    whose weight `cap` cuts.
    """
    if not mask_NC.any():
        return
    metrics.add("engine_gap", gap_NC.abs(), mask_NC)
    metrics.add("engine_truncated", (gap_NC.exp() > (cap or torch.inf)).float(), mask_NC)
    metrics.largest["engine_gap_max"] = gap_NC[mask_NC].abs().max().item()


def rollout_metrics(records: Sequence[Record], group_size: int) -> dict[str, list[float]]:
    """By name the values of the episodes or groups to which they apply; their means are what is shown.

    Of episodes: reward, shares in [0, 1], zoom factor, reply lengths in tokens by turn, accuracy by source. Of groups,
    `group_size` records next to each other: how far boxes agree, the spread of rewards, whether any of k rollouts is
    right (`pass@k`, k the group's size), and whether the commonest answer is (`majority@k`).
    """
    metrics = {name: values.known(field, records) for name, field in EPISODE.items()}
    for k in range(max(record.turns for record in records)):
        metrics[f"length_turn{k + 1}"] = [float(r.lengths[k]) for r in records if r.turns > k]
    for name in {record.source for record in records} - {""}:
        metrics[f"accuracy/{name}"] = [float(r.right) for r in records if r.source == name]
    groups = [records[i : i + group_size] for i in range(0, len(records), group_size)]
    of_groups = {
        "agreement": [values.agreement(group) for group in groups],
        "reward_spread": [values.reward_spread(group) for group in groups],
        f"pass@{group_size}": [values.pass_at_k(group, group_size) for group in groups],
        f"majority@{group_size}": [values.majority_at_k(group, group_size) for group in groups],
    }
    return metrics | {name: [v for v in found if v is not None] for name, found in of_groups.items()}
