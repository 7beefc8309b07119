"""The gap between the policy that is trained and the one that sampled. Shapes: N trajectories, C tokens."""

from torch import Tensor

from mgpo.objective.surrogates import ratio


def truncated_ratio(old_logprobs_NC: Tensor, sampled_logprobs_NC: Tensor, cap: float) -> Tensor:
    """min(π_old / π_sampler, cap) of each token, without gradient: (N, C).

    It multiplies a surrogate whose own ratio is π / π_old, so that clipping bounds what the updates change and this
    corrects for where the tokens came from (the decoupled objective of arXiv 2110.00641). Truncated as in V-trace
    (arXiv 1802.01561, section 4.1) for its variance; for engines that compute otherwise than the trainer: Yao et al.,
    "On the Rollout-Training Mismatch in Modern RL Systems", NeurIPS 2025 workshop on efficient reasoning.
    """
    return ratio(old_logprobs_NC, sampled_logprobs_NC).clamp(max=cap).detach()
