"""The objective of MGPO: GRPO's, over the policy's own tokens of all turns.

Pure tensor functions. Shapes: B questions, G rollouts a question, N = B · G trajectories, C tokens.
Log-probs are in nats. A mask is true exactly where the policy sampled the token.
"""

from typing import Literal

import torch
from torch import Tensor

Normalisation = Literal["token", "sequence"]
LARGEST_LOG_RATIO = 20.0  # e^20 is far outside every clip range, and far inside float32


def group_advantages(rewards_BG: Tensor, scale: bool = True, eps: float = 1e-6) -> Tensor:
    """Group-relative advantages (DeepSeekMath, arXiv 2402.03300, section 4.1.2): (r - mean) / std.

    The standard deviation is the population's. A group whose rewards are all equal gets exact zeros.
    With `scale` off the division is left out (Dr. GRPO, arXiv 2503.20783).
    """
    centred = rewards_BG - rewards_BG.mean(1, keepdim=True)
    # A mean of equal floats may be off by one unit in the last place; such a group has no signal.
    centred = centred.masked_fill(~has_signal(rewards_BG)[:, None], 0.0)
    return centred / (rewards_BG.std(1, correction=0, keepdim=True) + eps) if scale else centred


def has_signal(rewards_BG: Tensor) -> Tensor:
    """(B,): whether the rewards of a group differ; a group without that has no gradient."""
    return rewards_BG.amax(1) != rewards_BG.amin(1)


def clipped_policy_loss(
    logprobs_NC: Tensor, old_logprobs_NC: Tensor, advantages_N: Tensor, clip_low: float, clip_high: float
) -> Tensor:
    """PPO's clipped surrogate for each token (arXiv 1707.06347, equation 7), negated to be minimised: (N, C)."""
    ratio_NC = (logprobs_NC - old_logprobs_NC).clamp(-LARGEST_LOG_RATIO, LARGEST_LOG_RATIO).exp()
    clipped_NC = ratio_NC.clamp(1 - clip_low, 1 + clip_high)
    advantages_N1 = advantages_N[:, None]
    return -torch.minimum(ratio_NC * advantages_N1, clipped_NC * advantages_N1)


def clip_fraction(
    logprobs_NC: Tensor, old_logprobs_NC: Tensor, mask_NC: Tensor, clip_low: float, clip_high: float
) -> Tensor:
    """The share of policy tokens whose ratio lies outside the clip range."""
    ratio_NC = (logprobs_NC - old_logprobs_NC).clamp(-LARGEST_LOG_RATIO, LARGEST_LOG_RATIO).exp()
    outside_NC = (ratio_NC < 1 - clip_low) | (ratio_NC > 1 + clip_high)
    return (outside_NC & mask_NC).sum() / mask_NC.sum().clamp(min=1)


def kl_k3(logprobs_NC: Tensor, reference_logprobs_NC: Tensor, largest: float = 10.0) -> Tensor:
    """The low-variance, non-negative estimate of KL(policy || reference) for each token: e^d - d - 1, clamped.

    d = log reference - log policy (J. Schulman, "Approximating KL divergence", k3).
    """
    d = (reference_logprobs_NC - logprobs_NC).clamp(-LARGEST_LOG_RATIO, LARGEST_LOG_RATIO)
    return (d.exp() - d - 1).clamp(max=largest)


def token_weights(lengths_N: Tensor, normalisation: Normalisation) -> Tensor:
    """(N,): the weight of each policy token of a trajectory in a mini-batch; lengths are in policy tokens.

    "token": every token counts the same. "sequence": every trajectory counts the same (GRPO,
    equation 3). The weights of a mini-batch sum to 1 over its tokens, however it is split for memory.
    """
    if normalisation == "token":
        return torch.ones_like(lengths_N, dtype=torch.float) / lengths_N.sum().clamp(min=1)
    return 1.0 / (len(lengths_N) * lengths_N.clamp(min=1).float())


def weighted_sum(values_NC: Tensor, mask_NC: Tensor, weights_N: Tensor) -> Tensor:
    """The masked sum of token values under `token_weights`."""
    return (values_NC.masked_fill(~mask_NC, 0.0).sum(1) * weights_N).sum()
