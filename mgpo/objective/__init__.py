"""The objective of MGPO: GRPO's, over the policy's own tokens of all turns, and its family.

Pure tensor functions, each named after its equation; `Objective` is a choice among them.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from mgpo.errors import UserError
from mgpo.objective.advantages import Baseline, group_advantages, has_signal
from mgpo.objective.correction import truncated_ratio
from mgpo.objective.kl import Estimator, k3_clamped, kl_k1, kl_k2, kl_k3
from mgpo.objective.surrogates import Surrogate, cispo_loss, gspo_loss, outside, ppo_loss, ratio, sequence_ratio
from mgpo.objective.weights import Normalisation, token_weights, turn_factors, weighted_sum

__all__ = [
    "Objective", "cispo_loss", "group_advantages", "gspo_loss", "has_signal", "k3_clamped", "kl_k1", "kl_k2", "kl_k3",
    "outside", "ppo_loss", "sequence_ratio", "token_weights", "truncated_ratio", "turn_factors", "weighted_sum",
]  # fmt: skip
ESTIMATES = {"k1": kl_k1, "k2": kl_k2, "k3": kl_k3}


@dataclass(frozen=True)
class Objective:
    """What is maximised.

    Args:
        surrogate: ppo (token ratios, as GRPO), gspo (one ratio a trajectory) or cispo (clipped weights).
        clip_low: Ratios below 1 - clip_low earn nothing further.
        clip_high: Ratios above 1 + clip_high earn nothing further; larger than clip_low is clip-higher.
        baseline: What is subtracted from a reward: the group's mean, or the mean of the other rollouts.
        scale_advantages: Divide advantages by the standard deviation of the group's rewards.
        normalisation: Whether every token or every trajectory of a mini-batch counts the same, or tokens are
            divided by a constant.
        constant_length: Tokens by which "constant" normalisation divides.
        kl_weight: Weight of the penalty against the policy as it was before training, or with adapters against
            the base; 0 keeps no reference.
        kl: Its estimate: k1, k2 or k3.
        turn_weights: Weight of the tokens of turn 1, turn 2 …; the last serves all later ones. Empty: all 1.
        correction_cap: Most that a token may weigh for being likelier under the trainer than under the sampler,
            where these differ; null weighs none. Where the sampler is exact all weigh 1.
    """

    surrogate: Surrogate = "ppo"
    clip_low: float = 0.2
    clip_high: float = 0.2
    baseline: Baseline = "mean"
    scale_advantages: bool = True
    normalisation: Normalisation = "token"
    constant_length: int = 1024
    kl_weight: float = 0.0
    kl: Estimator = "k3"
    turn_weights: tuple[float, ...] = ()
    correction_cap: float | None = 2.0

    def __post_init__(self) -> None:
        if self.constant_length < 1 or self.clip_low < 0 or self.clip_high < 0 or self.kl_weight < 0:
            raise UserError(f"an objective needs clip bounds, kl_weight >= 0 and constant_length >= 1, not {self}")
        if self.correction_cap is not None and self.correction_cap < 1:
            raise UserError(f"objective.correction_cap is {self.correction_cap}; it is at least 1, or null for none")

    def advantages(self, rewards_BG: Tensor, counted_BG: Tensor | None = None) -> Tensor:
        """(B, G)."""
        return group_advantages(rewards_BG, self.scale_advantages, self.baseline, counted_BG)

    def losses(
        self, logprobs_NC: Tensor, old_logprobs_NC: Tensor, mask_NC: Tensor, turn_NC: Tensor, advantages_N: Tensor
    ) -> Tensor:
        """The policy loss of each token, without the penalty: (N, C)."""
        clip = (self.clip_low, self.clip_high)
        if self.surrogate == "gspo":
            losses_NC = gspo_loss(logprobs_NC, old_logprobs_NC, mask_NC, advantages_N, *clip)
        elif self.surrogate == "cispo":
            losses_NC = cispo_loss(logprobs_NC, old_logprobs_NC, advantages_N, *clip)
        else:
            losses_NC = ppo_loss(logprobs_NC, old_logprobs_NC, advantages_N, *clip)
        return losses_NC * turn_factors(turn_NC, self.turn_weights) if self.turn_weights else losses_NC

    def correction(self, old_logprobs_NC: Tensor, sampled_logprobs_NC: Tensor) -> Tensor:
        """What the policy loss of each token weighs for the gap between trainer and sampler: (N, C)."""
        if self.correction_cap is None:
            return torch.ones_like(old_logprobs_NC)
        return truncated_ratio(old_logprobs_NC, sampled_logprobs_NC, self.correction_cap)

    def clipped(self, logprobs_NC: Tensor, old_logprobs_NC: Tensor, mask_NC: Tensor) -> Tensor:
        """Which tokens have a ratio outside the clip range: (N, C). The mask says which of them are the policy's."""
        if self.surrogate == "gspo":
            ratio_NC = sequence_ratio(logprobs_NC, old_logprobs_NC, mask_NC)
        else:
            ratio_NC = ratio(logprobs_NC, old_logprobs_NC)
        return outside(ratio_NC, self.clip_low, self.clip_high).expand_as(logprobs_NC)

    def penalty(self, logprobs_NC: Tensor, reference_logprobs_NC: Tensor) -> Tensor:
        """The estimate of the divergence at each token, not yet weighted: (N, C)."""
        return ESTIMATES[self.kl](logprobs_NC, reference_logprobs_NC)

    def clamped(self, logprobs_NC: Tensor, reference_logprobs_NC: Tensor) -> Tensor:
        """Where that estimate has no gradient, because it is kept finite: (N, C)."""
        if self.kl != "k3":
            return torch.zeros_like(logprobs_NC, dtype=torch.bool)
        return k3_clamped(logprobs_NC, reference_logprobs_NC)

    def weights(
        self, lengths_N: Tensor, counted_N: Tensor, mean: Callable[[Tensor], Tensor] = lambda total: total
    ) -> Tensor:
        """(N,): the weight of each policy token of a trajectory; `mean` averages over processes."""
        return token_weights(lengths_N, self.normalisation, counted_N, self.constant_length, mean)
