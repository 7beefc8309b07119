"""How far the share of a group's rollouts that agree on an answer can be trusted."""

import math
from collections import defaultdict
from collections.abc import Sequence
from statistics import fmean
from typing import Any

from mgpo.errors import UserError
from mgpo.metrics import values
from mgpo.metrics.base import By, RecordMetric, new_axes
from mgpo.metrics.record import Record

Bin = list[tuple[float, bool]]  # confidence and rightness of each group in it


class VoteCalibration(RecordMetric):
    """Expected calibration error of the vote: sum over bins of |bin| / groups · |rightness - confidence|.

    In [0, 1]; lower is better. Confidence is the share of a group's rollouts that gave its commonest answer, right is
    whether that answer is; bins have equal widths and hold their upper ends. Groups without any answer are left out.

    Args:
        bins: Equal parts of (0, 1].
        by: One value for each split or category instead of one for all.
        options: torchmetrics' own.
    """

    higher_is_better = False
    plot_upper_bound = 1.0

    def __init__(self, bins: int = 10, by: By | None = None, **options: Any) -> None:
        super().__init__(by, **options)
        if bins < 1:
            raise UserError(f"bins is {bins}; a calibration needs bins >= 1")
        self.bins = bins

    def judge(self, records: list[Record]) -> float:
        """The error over all groups with an answer; NaN without one."""
        parts = self.binned(records)
        groups = sum(len(part) for part in parts.values())
        gaps = [len(part) * abs(rightness(part) - confidence(part)) for part in parts.values()]
        return math.fsum(gaps) / groups if groups else math.nan

    def binned(self, records: Sequence[Record]) -> dict[int, Bin]:
        """The groups of each bin that has any, from 0 for the least confident."""
        parts = defaultdict(list)
        for group in values.groups_of(records):
            winner = values.commonest(group)
            if winner is not None:
                count, right = winner
                parts[(count * self.bins - 1) // len(group)].append((count / len(group), right))
        return dict(sorted(parts.items()))

    def plot(self, val: Any = None, ax: Any = None) -> tuple[Any, Any]:
        """The reliability diagram of all groups, each bar with its number of them; for values, as any metric."""
        if val is not None:
            return super().plot(val, ax)
        with self.sync_context(self.dist_sync_fn):
            parts = self.binned([self.as_record(row) for row in self.rows()])
        ax = new_axes() if ax is None else ax
        middles = [(i + 0.5) / self.bins for i in parts]
        bars = ax.bar(middles, [rightness(part) for part in parts.values()], 0.9 / self.bins)
        ax.bar_label(bars, [str(len(part)) for part in parts.values()])
        ax.plot([0, 1], [0, 1], "--", color="grey")
        ax.plot([confidence(part) for part in parts.values()], [rightness(part) for part in parts.values()], "ko")
        ax.set(xlim=(0, 1), ylim=(0, 1.08), xlabel="share of rollouts that agree", ylabel="share of groups right")
        return ax.figure, ax


def confidence(part: Bin) -> float:
    """Mean over a bin's groups of the share of rollouts that gave the commonest answer."""
    return fmean(confidence for confidence, _ in part)


def rightness(part: Bin) -> float:
    """Share of a bin's groups whose commonest answer is right."""
    return fmean(right for _, right in part)
