"""What episodes and groups of rollouts say of themselves: numbers, or None where one does not apply.

None of it needs a right box. A group is the rollouts of one question at one step, in the order of their numbers.
Metrics, training and reports are all made of these functions.
"""

from collections import Counter
from collections.abc import Sequence
from itertools import combinations, groupby
from math import comb, isfinite, nan
from statistics import fmean, pstdev

from mgpo.images.views import Box
from mgpo.metrics.record import Record

Group = Sequence[Record]
FIELDS = {  # of a record, by the name of the curve or of the number in a report
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
    "subimage_accuracy": "subimage_right",
}
GEOMETRIC = ("zoom_factor",)  # whose mean is that of the logarithms


def known(field: str, records: Sequence[Record]) -> list[float]:
    """What a field of the records says, such as "zoom", of those in which it applies; true is 1."""
    return [float(value) for record in records if (value := getattr(record, field)) is not None]


def subimage_shares(records: Sequence[Record]) -> list[float]:
    """For every record 1 if its sub-image alone answers, else 0; empty where no box was asked for in any of them."""
    asked = any(record.valid_box is not None for record in records)
    return [float(record.subimage_right is True) for record in records] if asked else []


def groups_of(records: Sequence[Record]) -> list[list[Record]]:
    """Records that stand next to each other and belong to one question at one step."""
    return [list(group) for _, group in groupby(records, lambda record: (record.split, record.id, record.step))]


def agreement(group: Group) -> float | None:
    """Mean intersection over union of all pairs of the group's valid boxes; None with fewer than two of them.

    It is 0 for boxes in different pictures.
    """
    boxes = [(record.box_picture, record.box) for record in group if record.box is not None]
    pairs = [overlap(a, b) if place == other else 0.0 for (place, a), (other, b) in combinations(boxes, 2)]
    return fmean(pairs) if pairs else None


def overlap(a: Box, b: Box) -> float:
    """Intersection over union of two boxes, in [0, 1]; 0 where neither has an area."""
    width, height = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    shared = max(0.0, width) * max(0.0, height)
    union = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - shared
    return shared / union if union > 0 else 0.0


def reward_spread(group: Group) -> float:
    """Population standard deviation of the rewards: what divides the advantages of GRPO."""
    rewards = [record.reward for record in group]
    return pstdev(rewards) if all(map(isfinite, rewards)) else nan


def constant_reward(group: Group) -> float:
    """Gives 1 if all rewards are equal, so that the group has no gradient, else 0."""
    return float(len({record.reward for record in group}) == 1)


def pass_at_k(group: Group, k: int) -> float | None:
    """The chance that k of n rollouts, of which c are right, hold a right one: 1 - C(n - c, k) / C(n, k).

    C(n, k) is the number of ways to choose k of n. Unbiased (Chen et al., arXiv 2107.03374, eq. 1). None with fewer
    than k rollouts.
    """
    n, c = len(group), sum(record.right for record in group)
    return 1 - comb(n - c, k) / comb(n, k) if n >= k else None


def majority_at_k(group: Group, k: int) -> float | None:
    """The share of the n // k disjoint runs of k rollouts whose commonest answer is right.

    A run without any answer is wrong. None with fewer than k rollouts.
    """
    winners = [commonest(group[i : i + k]) for i in range(0, len(group) - k + 1, k)]
    return fmean(winner is not None and winner[1] for winner in winners) if winners else None


def commonest(group: Group) -> tuple[int, bool] | None:
    """How many rollouts gave the commonest answer, and whether it is right; None where nobody answered.

    Ties go to the answer that was given first.
    """
    votes = Counter(record.vote for record in group if record.vote is not None)
    if not votes:
        return None
    vote, count = votes.most_common(1)[0]
    return count, next(record.right for record in group if record.vote == vote)
