"""How much each policy token counts.

Shapes: N trajectories, C tokens. Symbols: L_n the policy tokens of trajectory n, c_n 1 where it counts and else 0,
m_nc 1 where the policy sampled token c of it and else 0.
"""

from collections.abc import Callable, Sequence
from typing import Literal

import torch
from torch import Tensor

Normalisation = Literal["token", "sequence", "constant"]


def token_weights(
    lengths_N: Tensor,
    normalisation: Normalisation,
    counted_N: Tensor,
    constant: int = 1,
    mean: Callable[[Tensor], Tensor] = lambda total: total,
) -> Tensor:
    """The weight w_n of each policy token of a trajectory in a mini-batch: (N,); 0 where it is not counted.

    - "token": w_n = c_n / Σ_k c_k L_k, every token counts the same (DAPO, arXiv 2503.14476, section 3.3).
    - "sequence": w_n = c_n / (L_n Σ_k c_k), every trajectory counts the same (GRPO, arXiv 2402.03300, equation 3).
    - "constant": w_n = c_n / (constant · Σ_k c_k), whatever the lengths (Dr. GRPO, arXiv 2503.20783).

    The first two sum to 1 over the counted tokens of a mini-batch, however it is split for memory.

    Args:
        lengths_N: The policy tokens of each trajectory.
        normalisation: Which of the three.
        counted_N: Which trajectories count.
        constant: Tokens by which "constant" divides.
        mean: Averages a scalar over processes. Gradients are averaged over them, so the sum over k is taken as its
            average too: that makes them the gradient of one process with all their trajectories.
    """
    counted_N = counted_N.float()
    own_N = lengths_N.clamp(min=1) if normalisation == "sequence" else torch.ones_like(counted_N)
    total = mean((counted_N * lengths_N if normalisation == "token" else counted_N).sum())
    scale = constant if normalisation == "constant" else 1
    return counted_N / (own_N * scale * (total if total > 0 else 1))


def turn_factors(turn_NC: Tensor, weights: Sequence[float]) -> Tensor:
    """The weight of each token's turn, f_nc = weights[min(turn_nc, last)]: (N, C).

    Args:
        turn_NC: The turn of each token, from 0.
        weights: Of the turns in order; the last one serves all later turns.
    """
    table = torch.tensor(weights, device=turn_NC.device)
    return table[turn_NC.clamp(max=len(weights) - 1)]


def weighted_sum(values_NC: Tensor, mask_NC: Tensor, weights_N: Tensor) -> Tensor:
    """The sum of token values under the weights of their trajectories, Σ_n w_n Σ_c m_nc x_nc: a scalar.

    Args:
        values_NC: x_nc; what stands outside the mask is left out, even where it is no number.
        mask_NC: True where m_nc is 1.
        weights_N: Those of `token_weights`.
    """
    return (values_NC.masked_fill(~mask_NC, 0.0).sum(1) * weights_N).sum()
