"""What a policy token earns, and what it pays for leaving the reference: losses of tokens, out of their log-probs.

Shapes: N trajectories, C tokens. Symbols: π the policy that is trained, π_old the same before the step's updates,
π_sampler the one that drew the tokens, π_ref the reference; a_nc token c of trajectory n, h_nc the history before it;
m_nc the mask, 1 exactly where the policy sampled the token and 0 elsewhere; L_n = Σ_c m_nc; Â_nc the advantage of token
c, where a whole trajectory has one the same for all its tokens, so that advantages_NC may also be (N, 1);
sg(·) a value without gradient; clip(x, l, u) = min(max(x, l), u). Log-probs are natural logarithms: nats. All losses
are to be minimised.
"""

from typing import Literal

import torch
from torch import Tensor

Surrogate = Literal["ppo", "gspo", "cispo", "sapo"]
Estimator = Literal["k1", "k2", "k3"]
LARGEST_LOG_RATIO = 20.0  # e^20 is far outside every clip range, and far inside float32
LARGEST_K3 = 10.0


def ratio(logprobs_NC: Tensor, old_logprobs_NC: Tensor) -> Tensor:
    """The importance ratio of each token, ρ_nc = π(a_nc | h_nc) / π_old(a_nc | h_nc), within e^±20: (N, C)."""
    return (logprobs_NC - old_logprobs_NC).clamp(-LARGEST_LOG_RATIO, LARGEST_LOG_RATIO).exp()


def sequence_ratio(logprobs_NC: Tensor, old_logprobs_NC: Tensor, mask_NC: Tensor) -> Tensor:
    """The geometric mean of a trajectory's token ratios over all its turns (GSPO, arXiv 2507.18071, section 4.1).

    s_n = exp(1 / L_n · Σ_c m_nc (log π(a_nc | h_nc) - log π_old(a_nc | h_nc))), within e^±20; 1 without a policy token.

    Returns:
        (N, 1).
    """
    logs_NC = (logprobs_NC - old_logprobs_NC).masked_fill(~mask_NC, 0.0)
    mean_N1 = logs_NC.sum(1, keepdim=True) / mask_NC.sum(1, keepdim=True).clamp(min=1)
    return mean_N1.clamp(-LARGEST_LOG_RATIO, LARGEST_LOG_RATIO).exp()


def ppo_loss(
    logprobs_NC: Tensor, old_logprobs_NC: Tensor, advantages_NC: Tensor, clip_low: float, clip_high: float
) -> Tensor:
    """PPO's clipped surrogate for each token (arXiv 1707.06347, equation 7): (N, C).

    -min(ρ_nc Â_nc, clip(ρ_nc, 1 - clip_low, 1 + clip_high) Â_nc)

    Unequal bounds are clip-higher (DAPO, arXiv 2503.14476, section 3.1).
    """
    ratio_NC = ratio(logprobs_NC, old_logprobs_NC)
    clipped_NC = ratio_NC.clamp(1 - clip_low, 1 + clip_high)
    return -torch.minimum(ratio_NC * advantages_NC, clipped_NC * advantages_NC)


def gspo_loss(
    logprobs_NC: Tensor,
    old_logprobs_NC: Tensor,
    mask_NC: Tensor,
    advantages_NC: Tensor,
    clip_low: float,
    clip_high: float,
) -> Tensor:
    """The clipped surrogate of the sequence ratio (GSPO, arXiv 2507.18071, section 4.1), at every token: (N, C).

    -min(s_n Â_nc, clip(s_n, 1 - clip_low, 1 + clip_high) Â_nc)

    Under "sequence" normalisation the tokens of a trajectory add up to its one term. Where they have advantages of
    their own s_n is still the ratio of them all, and clipped for each by the sign of its Â_nc: inside the clip range
    the term is that of their mean advantage.
    """
    ratio_N1 = sequence_ratio(logprobs_NC, old_logprobs_NC, mask_NC)
    clipped_N1 = ratio_N1.clamp(1 - clip_low, 1 + clip_high)
    return -torch.minimum(ratio_N1 * advantages_NC, clipped_N1 * advantages_NC).expand_as(logprobs_NC)


def cispo_loss(
    logprobs_NC: Tensor, old_logprobs_NC: Tensor, advantages_NC: Tensor, clip_low: float, clip_high: float
) -> Tensor:
    """REINFORCE under a clipped importance weight without gradient (CISPO, arXiv 2506.13585, section 3.1): (N, C).

    -sg(clip(ρ_nc, 1 - clip_low, 1 + clip_high)) Â_nc log π(a_nc | h_nc)

    No token loses its gradient; a `clip_low` of 1 leaves the weight unbounded below, as published.
    """
    weight_NC = ratio(logprobs_NC, old_logprobs_NC).clamp(1 - clip_low, 1 + clip_high).detach()
    return -weight_NC * advantages_NC * logprobs_NC


def sapo_loss(
    logprobs_NC: Tensor, old_logprobs_NC: Tensor, advantages_NC: Tensor, tau_pos: float, tau_neg: float
) -> Tensor:
    """The soft gate of each token's ratio (SAPO, arXiv 2511.20347), in place of a clip range: (N, C).

    -(4 / τ_nc) σ(τ_nc (ρ_nc - 1)) Â_nc, with σ the logistic function and τ_nc = tau_pos where Â_nc > 0, else tau_neg

    Its gradient is that of -ρ_nc Â_nc times 4 σ (1 - σ), which is 1 at ρ_nc = 1 and fades on both sides, the faster the
    higher τ_nc.
    """
    tau_NC = torch.where(advantages_NC > 0, tau_pos, tau_neg).to(advantages_NC.dtype)
    gate_NC = torch.sigmoid(tau_NC * (ratio(logprobs_NC, old_logprobs_NC) - 1)) * 4 / tau_NC
    return -gate_NC * advantages_NC


def outside(ratio_NC: Tensor, clip_low: float, clip_high: float) -> Tensor:
    """Whether ratios, of tokens or of trajectories, are below 1 - clip_low or above 1 + clip_high: in their shape."""
    return (ratio_NC < 1 - clip_low) | (ratio_NC > 1 + clip_high)


def truncated_ratio(old_logprobs_NC: Tensor, sampled_logprobs_NC: Tensor, cap: float) -> Tensor:
    """The weight sg(min(π_old(a_nc | h_nc) / π_sampler(a_nc | h_nc), cap)) of each token, without gradient: (N, C).

    It multiplies a surrogate whose own ratio is π / π_old, so that clipping bounds what the updates change and this
    corrects for where the tokens came from (the decoupled objective of arXiv 2110.00641). Truncated as in V-trace
    (arXiv 1802.01561, section 4.1) for its variance; for engines that compute otherwise than the trainer: Yao et al.,
    "On the Rollout-Training Mismatch in Modern RL Systems", NeurIPS 2025 workshop on efficient reasoning.
    """
    return ratio(old_logprobs_NC, sampled_logprobs_NC).clamp(max=cap).detach()


def kl_k1(logprobs_NC: Tensor, reference_logprobs_NC: Tensor) -> Tensor:
    """The estimate k1 = -d of KL(π || π_ref), with d = log π_ref(a_nc | h_nc) - log π(a_nc | h_nc): (N, C), in nats.

    Unbiased, of either sign. Its gradient is zero in expectation, so measure with it, and penalise with k2. All three
    estimates are those of J. Schulman, "Approximating KL divergence".
    """
    return logprobs_NC - reference_logprobs_NC


def kl_k2(logprobs_NC: Tensor, reference_logprobs_NC: Tensor) -> Tensor:
    """The estimate k2 = d² / 2, with d as for `kl_k1`: biased, but its gradient is that of the divergence; (N, C)."""
    return (reference_logprobs_NC - logprobs_NC).square() / 2


def kl_k3(logprobs_NC: Tensor, reference_logprobs_NC: Tensor, largest: float = LARGEST_K3) -> Tensor:
    """The estimate k3 = min(e^d - d - 1, largest), with d as for `kl_k1`, within ±20: (N, C).

    That of the published recipe: unbiased but for the clamp, never negative, of low variance. Where it is clamped, for
    d above 2.6 nats or below -11, a token feels no penalty at all.
    """
    d_NC = (reference_logprobs_NC - logprobs_NC).clamp(-LARGEST_LOG_RATIO, LARGEST_LOG_RATIO)
    return (d_NC.exp() - d_NC - 1).clamp(max=largest)


def k3_clamped(logprobs_NC: Tensor, reference_logprobs_NC: Tensor) -> Tensor:
    """Whether k3 of each token is at its largest, so that it has no gradient: (N, C)."""
    return kl_k3(logprobs_NC, reference_logprobs_NC) >= LARGEST_K3
