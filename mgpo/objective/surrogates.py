"""What a policy token earns. Shapes: N trajectories, C tokens. Log-probs are in nats.

A mask is true exactly where the policy sampled the token. All losses are to be minimised.
"""

from typing import Literal

import torch
from torch import Tensor

Surrogate = Literal["ppo", "gspo", "cispo"]
LARGEST_LOG_RATIO = 20.0  # e^20 is far outside every clip range, and far inside float32


def ratio(logprobs_NC: Tensor, old_logprobs_NC: Tensor) -> Tensor:
    """The importance ratio of each token, kept finite."""
    return (logprobs_NC - old_logprobs_NC).clamp(-LARGEST_LOG_RATIO, LARGEST_LOG_RATIO).exp()


def sequence_ratio(logprobs_NC: Tensor, old_logprobs_NC: Tensor, mask_NC: Tensor) -> Tensor:
    """(N, 1): the geometric mean of a trajectory's token ratios over all its turns (GSPO, arXiv 2507.18071,
    section 4.1)."""
    logs_NC = (logprobs_NC - old_logprobs_NC).masked_fill(~mask_NC, 0.0)
    mean_N1 = logs_NC.sum(1, keepdim=True) / mask_NC.sum(1, keepdim=True).clamp(min=1)
    return mean_N1.clamp(-LARGEST_LOG_RATIO, LARGEST_LOG_RATIO).exp()


def ppo_loss(
    logprobs_NC: Tensor, old_logprobs_NC: Tensor, advantages_N: Tensor, clip_low: float, clip_high: float
) -> Tensor:
    """PPO's clipped surrogate for each token (arXiv 1707.06347, equation 7): (N, C).

    Unequal bounds are clip-higher (DAPO, arXiv 2503.14476, section 3.1).
    """
    return _clipped(ratio(logprobs_NC, old_logprobs_NC), advantages_N[:, None], clip_low, clip_high)


def gspo_loss(
    logprobs_NC: Tensor,
    old_logprobs_NC: Tensor,
    mask_NC: Tensor,
    advantages_N: Tensor,
    clip_low: float,
    clip_high: float,
) -> Tensor:
    """The clipped surrogate of the sequence ratio (GSPO, arXiv 2507.18071, section 4.1), at every token:
    (N, C). Under "sequence" normalisation the tokens of a trajectory add up to its one term.
    """
    ratio_N1 = sequence_ratio(logprobs_NC, old_logprobs_NC, mask_NC)
    return _clipped(ratio_N1, advantages_N[:, None], clip_low, clip_high).expand_as(logprobs_NC)


def cispo_loss(
    logprobs_NC: Tensor, old_logprobs_NC: Tensor, advantages_N: Tensor, clip_low: float, clip_high: float
) -> Tensor:
    """REINFORCE under a clipped importance weight without gradient (CISPO, arXiv 2506.13585, section 3.1):
    (N, C).

    No token loses its gradient; a `clip_low` of 1 leaves the weight unbounded below, as published.
    """
    weight_NC = ratio(logprobs_NC, old_logprobs_NC).clamp(1 - clip_low, 1 + clip_high).detach()
    return -weight_NC * advantages_N[:, None] * logprobs_NC


def outside(ratio_NC: Tensor, clip_low: float, clip_high: float) -> Tensor:
    """Which ratios, of tokens or of trajectories, lie outside the clip range."""
    return (ratio_NC < 1 - clip_low) | (ratio_NC > 1 + clip_high)


def _clipped(ratio_NC: Tensor, advantages_N1: Tensor, clip_low: float, clip_high: float) -> Tensor:
    clipped_NC = ratio_NC.clamp(1 - clip_low, 1 + clip_high)
    return -torch.minimum(ratio_NC * advantages_N1, clipped_NC * advantages_N1)
