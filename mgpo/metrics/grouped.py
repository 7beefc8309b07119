"""Metrics of groups: the rollouts of one question at one step. None of them needs a right box."""

from collections.abc import Sequence
from typing import Any

from mgpo.errors import UserError
from mgpo.metrics import values
from mgpo.metrics.base import By, GroupMean
from mgpo.metrics.record import Record


class GroupAgreement(GroupMean):
    """Mean over groups of the mean intersection over union of all pairs of valid boxes, in [0, 1].

    Higher: the policy knows where it wants to look, be that right or wrong; 1 is a policy that explores no more.
    Groups with fewer than two valid boxes are left out.
    """

    plot_upper_bound = 1.0
    of = staticmethod(values.agreement)


class GroupSpread(GroupMean):
    """Mean over groups of the population standard deviation of rewards, at least 0; 0 teaches nothing.

    At most half the rewards' range. Nothing is left out.
    """

    of = staticmethod(values.reward_spread)


class ConstantRewardGroups(GroupMean):
    """Groups whose rewards are all equal / groups, in [0, 1]; lower is better, for they have no gradient.

    Rollouts that training masks count here; a question with one rollout has always a constant reward.
    """

    higher_is_better = False
    plot_upper_bound = 1.0
    of = staticmethod(values.constant_reward)


class AtK(GroupMean):
    """A mean over groups of a value of k rollouts; groups with fewer are left out.

    Args:
        k: Rollouts. Raises UserError for a number that none can fill.
        by: One value for each split or category instead of one for all.
        options: torchmetrics' own.
    """

    higher_is_better = True
    plot_upper_bound = 1.0

    def __init__(self, k: int, by: By | None = None, **options: Any) -> None:
        super().__init__(by, **options)
        if k < 1:
            raise UserError(f"k is {k}; a metric over k rollouts needs k >= 1")
        self.k = k


class PassAtK(AtK):
    """Mean over groups of 1 - C(n - c, k) / C(n, k) with c of n rollouts right, in [0, 1]; higher is better.

    The chance that k rollouts hold a right one (Chen et al., arXiv 2107.03374, eq. 1). Groups with fewer than k
    rollouts are left out.
    """

    def of(self, group: Sequence[Record]) -> float | None:
        """The chance that k of the group's rollouts hold a right one; None with fewer than k."""
        return values.pass_at_k(group, self.k)


class MajorityAtK(AtK):
    """Mean over groups of the share of their n // k disjoint runs of k rollouts whose commonest answer is right.

    In [0, 1]; higher is better. Ties go to the answer given first; rollouts without an answer don't vote, and a run
    of such is wrong. Groups with fewer than k rollouts, and what a group has beyond its last run, are left out.
    """

    def of(self, group: Sequence[Record]) -> float | None:
        """The share of the group's runs of k rollouts whose commonest answer is right; None with fewer than k."""
        return values.majority_at_k(group, self.k)
