"""Advantages within a group. Shapes: B questions, G rollouts a question. Nothing here knows of tokens."""

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
    """Group-relative advantages (DeepSeekMath, arXiv 2402.03300, section 4.1.2): (r - mean) / std.

    The standard deviation is the population's. With `scale` off the division is left out (Dr. GRPO,
    arXiv 2503.20783, section 3.2). "leave_one_out" subtracts the mean of the *other* rollouts (RLOO,
    arXiv 2402.14740). Rollouts that are not `counted_BG` take no part in the statistics
    and get zero; a group whose counted rewards are all equal gets exact zeros.
    """
    if counted_BG is None:
        counted_BG = torch.ones_like(rewards_BG, dtype=torch.bool)
    count_B1 = counted_BG.sum(1, keepdim=True).clamp(min=1)
    mean_B1 = rewards_BG.masked_fill(~counted_BG, 0.0).sum(1, keepdim=True) / count_B1
    # A mean of equal floats may be off by one unit in the last place; such a group has no signal.
    silent_BG = ~counted_BG | ~has_signal(rewards_BG, counted_BG)[:, None]
    centred_BG = (rewards_BG - mean_B1).masked_fill(silent_BG, 0.0)
    std_B1 = (centred_BG.square().sum(1, keepdim=True) / count_B1).sqrt()
    if baseline == "leave_one_out":
        centred_BG = centred_BG * count_B1 / (count_B1 - 1).clamp(min=1)
    return centred_BG / (std_B1 + eps) if scale else centred_BG


def has_signal(rewards_BG: Tensor, counted_BG: Tensor | None = None) -> Tensor:
    """(B,): whether the counted rewards of a group differ; a group without that has no gradient."""
    if counted_BG is None:
        return rewards_BG.amax(1) != rewards_BG.amin(1)
    high_B = rewards_BG.masked_fill(~counted_BG, -torch.inf).amax(1)
    low_B = rewards_BG.masked_fill(~counted_BG, torch.inf).amin(1)
    return ~(high_B <= low_B)  # a reward that is no number has a signal: it must not pass for silence
