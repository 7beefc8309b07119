"""A choice among advantages, surrogates, penalties and weights of tokens, as a configuration makes it.

Shapes: B questions, G rollouts a question, N trajectories, C tokens. The symbols are those of
`mgpo.objective.surrogates`.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from mgpo.errors import UserError
from mgpo.objective.advantages import Baseline, group_advantages
from mgpo.objective.surrogates import (
    Estimator,
    Surrogate,
    cispo_loss,
    gspo_loss,
    k3_clamped,
    kl_k1,
    kl_k2,
    kl_k3,
    outside,
    ppo_loss,
    ratio,
    sapo_loss,
    sequence_ratio,
    truncated_ratio,
)
from mgpo.objective.weights import Normalisation, token_weights, turn_factors

ESTIMATES = {"k1": kl_k1, "k2": kl_k2, "k3": kl_k3}


@dataclass(frozen=True)
class Objective:
    """What is maximised over the policy's tokens of a mini-batch.

    Σ_n w_n Σ_c m_nc (f_nc κ_nc J_nc - kl_weight · k_nc + entropy_weight · H_nc), where J_nc is the surrogate of token c
    in trajectory n, f_nc the weight of its turn, κ_nc its correction for the sampler, k_nc the estimate of its
    divergence from the reference, H_nc = -Σ_v π(v | h_nc) log π(v | h_nc) the entropy of the distribution that it was
    drawn from, w_n the weight of each token of the trajectory under `normalisation`, and m_nc 1 where the policy
    sampled it.

    Args:
        surrogate: ppo (token ratios, as GRPO), gspo (one ratio a trajectory), cispo (clipped weights) or sapo (a soft
            gate of token ratios, which takes no clip bounds).
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
        tau_pos: Temperature of sapo's gate where the advantage is positive; the higher, the nearer to 1 a ratio has to
            stay.
        tau_neg: The same where it is not.
        entropy_weight: Weight of the bonus for entropy, in the loss for each nat of a token; 0 is none.
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
    tau_pos: float = 1.0
    tau_neg: float = 1.05
    entropy_weight: float = 0.0

    def __post_init__(self) -> None:
        if self.constant_length < 1 or self.clip_low < 0 or self.clip_high < 0 or self.kl_weight < 0:
            raise UserError(f"an objective needs clip bounds, kl_weight >= 0 and constant_length >= 1, not {self}")
        if self.correction_cap is not None and self.correction_cap < 1:
            raise UserError(f"objective.correction_cap is {self.correction_cap}; it is at least 1, or null for none")
        if not all(0 < tau < math.inf for tau in (self.tau_pos, self.tau_neg)):
            raise UserError(f"objective.tau_pos and tau_neg are above 0, not {self.tau_pos} and {self.tau_neg}")
        if not all(0 <= weight < math.inf for weight in self.turn_weights):
            raise UserError(f"objective.turn_weights are {list(self.turn_weights)}; each is at least 0, for no weight")
        if not 0 <= self.entropy_weight < math.inf:
            raise UserError(
                f"objective.entropy_weight is {self.entropy_weight}; it is at least 0, which gives no bonus"
            )

    def advantages(self, rewards_BG: Tensor, counted_BG: Tensor | None = None, eps: float = 1e-6) -> Tensor:
        """Group-relative advantages of rewards, under this baseline and scaling.

        Args:
            rewards_BG: The rewards of each question's rollouts.
            counted_BG: Which rollouts count; all of them by default.
            eps: Added to the standard deviation, where it divides.

        Returns:
            (B, G); 0 where a rollout doesn't count, or all that do in its group have the same reward.
        """
        return group_advantages(rewards_BG, self.scale_advantages, self.baseline, counted_BG, eps)

    def losses(
        self, logprobs_NC: Tensor, old_logprobs_NC: Tensor, mask_NC: Tensor, turn_NC: Tensor, advantages: Tensor
    ) -> Tensor:
        """The policy loss of each token, without correction, penalty and bonus: -f_nc J_nc, (N, C).

        Args:
            logprobs_NC: By the policy, with gradients.
            old_logprobs_NC: By the trainer, before the step's updates.
            mask_NC: True where the policy sampled the token; what is computed elsewhere means nothing.
            turn_NC: The turn of each token, from 0.
            advantages: Of whole trajectories, (N,), or of each token, (N, C).
        """
        advantages_NC = advantages if advantages.dim() == 2 else advantages[:, None]
        clip = (self.clip_low, self.clip_high)
        if self.surrogate == "gspo":
            losses_NC = gspo_loss(logprobs_NC, old_logprobs_NC, mask_NC, advantages_NC, *clip)
        elif self.surrogate == "cispo":
            losses_NC = cispo_loss(logprobs_NC, old_logprobs_NC, advantages_NC, *clip)
        elif self.surrogate == "sapo":
            losses_NC = sapo_loss(logprobs_NC, old_logprobs_NC, advantages_NC, self.tau_pos, self.tau_neg)
        else:
            losses_NC = ppo_loss(logprobs_NC, old_logprobs_NC, advantages_NC, *clip)
        return losses_NC * turn_factors(turn_NC, self.turn_weights) if self.turn_weights else losses_NC

    def correction(self, old_logprobs_NC: Tensor, sampled_logprobs_NC: Tensor) -> Tensor:
        """What the policy loss of each token weighs for the gap between trainer and sampler, κ_nc: (N, C).

        It is min(π_old / π_sampler, correction_cap) without gradient, or 1 where there is no cap.
        """
        if self.correction_cap is None:
            return torch.ones_like(old_logprobs_NC)
        return truncated_ratio(old_logprobs_NC, sampled_logprobs_NC, self.correction_cap)

    def clipped(self, logprobs_NC: Tensor, old_logprobs_NC: Tensor, mask_NC: Tensor) -> Tensor:
        """Whether the ratio of each token, under "gspo" of its trajectory, is outside the clip range: (N, C).

        Under "sapo", which has no such range, too: it says how far the policy has moved.
        What is said of tokens outside `mask_NC` means nothing.
        """
        if self.surrogate == "gspo":
            ratio_NC = sequence_ratio(logprobs_NC, old_logprobs_NC, mask_NC)
        else:
            ratio_NC = ratio(logprobs_NC, old_logprobs_NC)
        return outside(ratio_NC, self.clip_low, self.clip_high).expand_as(logprobs_NC)

    def penalty(self, logprobs_NC: Tensor, reference_logprobs_NC: Tensor) -> Tensor:
        """The estimate k_nc of KL(π || π_ref) at each token, in nats, not yet weighted: (N, C)."""
        return ESTIMATES[self.kl](logprobs_NC, reference_logprobs_NC)

    def clamped(self, logprobs_NC: Tensor, reference_logprobs_NC: Tensor) -> Tensor:
        """Whether that estimate has no gradient at a token, because it is kept finite: (N, C)."""
        if self.kl != "k3":
            return torch.zeros_like(logprobs_NC, dtype=torch.bool)
        return k3_clamped(logprobs_NC, reference_logprobs_NC)

    def weights(
        self, lengths_N: Tensor, counted_N: Tensor, mean: Callable[[Tensor], Tensor] = lambda total: total
    ) -> Tensor:
        """The weight w_n of each policy token of a trajectory under this normalisation: (N,).

        Args:
            lengths_N: Policy tokens of each trajectory.
            counted_N: Which trajectories count; the others weigh 0.
            mean: Averages a scalar over processes.
        """
        return token_weights(lengths_N, self.normalisation, counted_N, self.constant_length, mean)
