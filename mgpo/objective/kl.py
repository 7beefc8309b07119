"""Estimates of KL(policy || reference) for each sampled token, in nats (J. Schulman, "Approximating KL divergence").

d = log reference - log policy. Shapes: N trajectories, C tokens.
"""

from typing import Literal

from torch import Tensor

from mgpo.objective.surrogates import LARGEST_LOG_RATIO

LARGEST_K3 = 10.0
Estimator = Literal["k1", "k2", "k3"]


def kl_k1(logprobs_NC: Tensor, reference_logprobs_NC: Tensor) -> Tensor:
    """-d: unbiased, of either sign. Its gradient is zero in expectation, so measure with it, and penalise with k2."""
    return logprobs_NC - reference_logprobs_NC


def kl_k2(logprobs_NC: Tensor, reference_logprobs_NC: Tensor) -> Tensor:
    """d² / 2: biased, but its gradient is that of the divergence."""
    return (reference_logprobs_NC - logprobs_NC).square() / 2


def kl_k3(logprobs_NC: Tensor, reference_logprobs_NC: Tensor, largest: float = LARGEST_K3) -> Tensor:
    """e^d - d - 1: unbiased but for the clamp, never negative, of low variance; the published recipe's.

    Where it is clamped, for d above 2.6 nats or below -11, a token feels no penalty at all.
    """
    d_NC = (reference_logprobs_NC - logprobs_NC).clamp(-LARGEST_LOG_RATIO, LARGEST_LOG_RATIO)
    return (d_NC.exp() - d_NC - 1).clamp(max=largest)


def k3_clamped(logprobs_NC: Tensor, reference_logprobs_NC: Tensor) -> Tensor:
    """Where k3 is clamped: (N, C)."""
    return kl_k3(logprobs_NC, reference_logprobs_NC) >= LARGEST_K3
