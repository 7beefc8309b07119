"""How much each policy token counts. Shapes: N trajectories, C tokens; lengths are in policy tokens."""

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

Normalisation = Literal["token", "sequence", "constant"]


def token_weights(lengths_N: Tensor, normalisation: Normalisation, counted_N: Tensor, constant: int = 1) -> Tensor:
    """(N,): the weight of each policy token of a trajectory in a mini-batch; zero where it is not counted.

    "token": every token counts the same (DAPO, arXiv 2503.14476, section 3.3). "sequence": every
    trajectory counts the same (GRPO, arXiv 2402.03300, equation 3). "constant": every token counts
    1 / (trajectories · constant), whatever the lengths (Dr. GRPO, arXiv 2503.20783). The first two sum
    to 1 over the counted tokens of one process's mini-batch, however it is split for memory.
    """
    counted_N = counted_N.float()
    trajectories = counted_N.sum().clamp(min=1)
    if normalisation == "token":
        return counted_N / (lengths_N * counted_N).sum().clamp(min=1)
    if normalisation == "sequence":
        return counted_N / (trajectories * lengths_N.clamp(min=1))
    return counted_N / (trajectories * constant)


def turn_factors(turn_NC: Tensor, weights: Sequence[float]) -> Tensor:
    """(N, C): the weight of each token's turn; the last one serves all later turns."""
    table = torch.tensor(weights, device=turn_NC.device)
    return table[turn_NC.clamp(max=len(weights) - 1)]


def weighted_sum(values_NC: Tensor, mask_NC: Tensor, weights_N: Tensor) -> Tensor:
    """The masked sum of token values under `token_weights`."""
    return (values_NC.masked_fill(~mask_NC, 0.0).sum(1) * weights_N).sum()
