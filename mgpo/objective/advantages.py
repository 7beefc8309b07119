"""Advantages within a group: the rollouts of one question. Nothing here knows of tokens.

Shapes: B questions, G rollouts a question. Symbols: r_bg the reward of rollout g of question b, c_bg 1 where it counts
and else 0, n_b = Σ_g c_bg.
"""

from typing import Literal

import torch
from torch import Tensor

Baseline = Literal["mean", "leave_one_out"]


def group_advantages(
    rewards_BG: Tensor,
    scale: bool = True,
    baseline: Baseline = "mean",
    counted_BG: Tensor | None = None,
    eps: float = 1e-6,
) -> Tensor:
    """Group-relative advantages (DeepSeekMath, arXiv 2402.03300, section 4.1.2).

    Â_bg = c_bg (r_bg - b_bg) / (σ_b + eps), with μ_b = 1 / n_b · Σ_g c_bg r_bg, the population's standard deviation
    σ_b = √(1 / n_b · Σ_g c_bg (r_bg - μ_b)²), and as baseline b_bg

    - "mean": μ_b;
    - "leave_one_out": 1 / (n_b - 1) · Σ_{h ≠ g} c_bh r_bh, the mean of the *other* rollouts (RLOO, arXiv 2402.14740).

    Args:
        rewards_BG: The rewards.
        scale: Without it nothing is divided: Â_bg = c_bg (r_bg - b_bg) (Dr. GRPO, arXiv 2503.20783, section 3.2).
        baseline: What is subtracted from a reward.
        counted_BG: Rollouts that take part in the statistics; the others get 0. All by default.
        eps: Keeps the division finite.

    Returns:
        (B, G); a group whose counted rewards are all equal gets exact zeros.
    """
    if counted_BG is None:
        counted_BG = torch.ones_like(rewards_BG, dtype=torch.bool)
    count_B1 = counted_BG.sum(1, keepdim=True).clamp(min=1)
    mean_B1 = rewards_BG.masked_fill(~counted_BG, 0.0).sum(1, keepdim=True) / count_B1
    # A mean of equal floats may be off by one unit in the last place; a group of constant reward has no signal.
    silent_BG = ~counted_BG | ~has_signal(rewards_BG, counted_BG)[:, None]
    centred_BG = (rewards_BG - mean_B1).masked_fill(silent_BG, 0.0)
    std_B1 = (centred_BG.square().sum(1, keepdim=True) / count_B1).sqrt()
    if baseline == "leave_one_out":
        centred_BG = centred_BG * count_B1 / (count_B1 - 1).clamp(min=1)
    return centred_BG / (std_B1 + eps) if scale else centred_BG


def has_signal(rewards_BG: Tensor, counted_BG: Tensor) -> Tensor:
    """Whether the counted rewards of each group differ, (B,): a group of constant reward has no gradient.

    Args:
        rewards_BG: The rewards; one that is no number differs from all others.
        counted_BG: Rollouts that count.
    """
    high_B = rewards_BG.masked_fill(~counted_BG, -torch.inf).amax(1)
    low_B = rewards_BG.masked_fill(~counted_BG, torch.inf).amin(1)
    return ~(high_B <= low_B)  # a reward that is no number has a signal: it must not pass for a constant one


def evidence_grades(margins_BG: Tensor, counted_BG: Tensor, cap: float = 8.0, least: float = 0.3) -> Tensor:
    """Evidence margins of one look, in nats, as rewards between 0 and 1: (B, G).

    g_bg = min(max(m_bg, 0), cap) / cap. A crop that misleads is worth no less than one that shows nothing, so that a
    refused box never pays. Where the counted ones of a group are less than `least` nats apart, by which likelihoods
    differ between equally good crops, all are 0.
    """
    grades_BG = margins_BG.clamp(0, cap) / cap
    low_B = grades_BG.masked_fill(~counted_BG, torch.inf).amin(1)
    high_B = grades_BG.masked_fill(~counted_BG, -torch.inf).amax(1)
    return grades_BG.masked_fill((high_B - low_B < least / cap)[:, None], 0.0)
