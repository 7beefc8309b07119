"""Means over a training step and all ranks, and what a training pass shows of itself."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from math import exp, log

import torch
from torch import Tensor

from mgpo.metrics import values
from mgpo.metrics.record import Record
from mgpo.objective import Objective
from mgpo.policy.passes.batch import Batch
from mgpo.policy.passes.logprobs import Scores
from mgpo.utils.collectives import share_objects

EPISODE = [name for name in values.FIELDS if name != "subimage_accuracy"]  # which training does not ask for
Read = tuple[Mapping[str, Sequence[float]], Mapping[str, float]]  # by name sums and their weights; largest values


@dataclass
class PassMetrics:
    """What one training pass adds to a step: by name sums and how many tokens they are of, and largest values.

    They stay where the pass is computed until the step ends: none waits for the one before.
    """

    sums: dict[str, tuple[Tensor, Tensor]] = field(default_factory=dict)
    largest: dict[str, Tensor] = field(default_factory=dict)

    @torch.no_grad()
    def add(self, name: str, values_NC: Tensor, mask_NC: Tensor) -> None:
        """The values of these tokens, of which there may be none."""
        self.sums[name] = values_NC.masked_fill(~mask_NC, 0.0).sum(dtype=torch.float64), mask_NC.sum()

    @torch.no_grad()
    def add_largest(self, name: str, values_NC: Tensor, mask_NC: Tensor) -> None:
        """The largest value of these tokens, of which there may be none."""
        if values_NC.numel():
            self.largest[name] = values_NC.masked_fill(~mask_NC, -torch.inf).max()

    def read(self) -> Read:
        """Sums and counts, and largest values, of what has any token; waits for the pass."""
        sums = {name: (total.item(), int(count)) for name, (total, count) in self.sums.items()}
        largest = {name: value.item() for name, value in self.largest.items()}
        return (
            {name: found for name, found in sums.items() if found[1]},
            {name: value for name, value in largest.items() if value != -torch.inf},
        )


class Tally:
    """Weighted means and maxima of whatever is added; geometric means of what is a factor."""

    def __init__(self) -> None:
        self.sums: dict[str, list[float]] = defaultdict(lambda: [0.0, 0.0])
        self.passes: list[PassMetrics] = []

    def add(self, metrics: dict[str, float], weight: float) -> None:
        """Add values by name, each with the same weight in its mean."""
        for name, value in metrics.items():
            self._sum(name, value * weight, weight)

    def add_all(self, found: Mapping[str, Sequence[float]]) -> None:
        """Each value with weight 1; a name without any stays missing."""
        for name, applicable in found.items():
            if applicable:
                self._sum(name, sum(map(log, applicable) if name in values.GEOMETRIC else applicable), len(applicable))

    def add_pass(self, metrics: PassMetrics) -> None:
        """Tokens of all passes count the same, however they were dealt out."""
        self.passes.append(metrics)

    def _sum(self, name: str, total: float, weight: float) -> None:
        self.sums[name][0] += total
        self.sums[name][1] += weight

    def over_ranks(self, world_size: int) -> dict[str, float]:
        """Means and maxima over all ranks, of which each may have other metrics; all must call."""
        parts: list[Read] = [(dict(self.sums), {}), *(metrics.read() for metrics in self.passes)]
        merged = Tally()
        largest: dict[str, float] = {}
        for sums, highest in chain.from_iterable(share_objects(parts, world_size)):
            for name, (total, weight) in sums.items():
                merged._sum(name, total, weight)
            for name, value in highest.items():
                largest[name] = max(value, largest.get(name, value))
        means = {name: total / weight for name, (total, weight) in merged.sums.items()}
        means |= {name: exp(means[name]) for name in values.GEOMETRIC if name in means}
        return dict(sorted((means | largest).items()))


@torch.no_grad()
def score_metrics(batch: Batch, old_NC: Tensor, scores: Scores, objective: Objective, moved_N: Tensor) -> PassMetrics:
    """Of the policy tokens of rollouts with an advantage (`moved_N`), whichever else pass: clip fraction, entropy in
    nats by turn, and the largest gap to the sampler's log-probs.

    At the first update of a step the gap is zero but for rounding.
    """
    shown = PassMetrics()
    mask_NC = batch.policy_NC & moved_N[:, None]
    clipped_NC = objective.clipped(scores.logprobs_NC, old_NC, batch.policy_NC)
    shown.add("clip_fraction", clipped_NC.float(), mask_NC)
    shown.add_largest("sampler_gap", (scores.logprobs_NC - batch.sampled_logprobs_NC).abs(), mask_NC)
    if scores.entropy_NC is not None:
        for k in range(batch.turns):
            shown.add(f"entropy_turn{k + 1}", scores.entropy_NC, mask_NC & (batch.turn_NC == k))
    return shown


def engine_metrics(metrics: PassMetrics, gap_NC: Tensor, mask_NC: Tensor, cap: float | None) -> None:
    """Add how far the trainer's log-probs of these tokens are from those under which an engine drew them, in nats.

    That is `engine_gap`, the mean absolute difference, `engine_gap_max`, and `engine_truncated`, the share of tokens
    whose weight `cap` cuts.
    """
    metrics.add("engine_gap", gap_NC.abs(), mask_NC)
    metrics.add("engine_truncated", (gap_NC.exp() > (cap or torch.inf)).float(), mask_NC)
    metrics.add_largest("engine_gap_max", gap_NC.abs(), mask_NC)


def rollout_metrics(groups: Sequence[Sequence[Record]], group_size: int) -> dict[str, list[float]]:
    """By name the values of the episodes or groups to which they apply; their means are what is shown.

    Of episodes: reward, shares in [0, 1], zoom factor, reply lengths in tokens by turn, accuracy by source. Of groups
    with `group_size` records: how far boxes agree, the spread of rewards, whether any of k rollouts is right
    (`pass@k`, k the group's size), and whether the commonest answer is (`majority@k`).
    """
    records = [record for group in groups for record in group]
    metrics = {name: values.known(values.FIELDS[name], records) for name in EPISODE}
    for k in range(max((record.turns for record in records), default=0)):
        metrics[f"length_turn{k + 1}"] = [float(r.lengths[k]) for r in records if r.turns > k]
    for name in {record.source for record in records} - {""}:
        metrics[f"accuracy/{name}"] = [float(r.right) for r in records if r.source == name]
    whole = [group for group in groups if len(group) == group_size]
    of_groups = {
        "agreement": [values.agreement(group) for group in whole],
        "reward_spread": [values.reward_spread(group) for group in whole],
        f"pass@{group_size}": [values.pass_at_k(group, group_size) for group in whole],
        f"majority@{group_size}": [values.majority_at_k(group, group_size) for group in whole],
    }
    return metrics | {name: [v for v in found if v is not None] for name, found in of_groups.items()}
