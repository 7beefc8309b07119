"""How much each policy token counts. Shapes: N trajectories, C tokens; lengths are in policy tokens."""

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
    """(N,): the weight of each policy token of a trajectory in a mini-batch; zero where it is not counted.

    "token": every token counts the same (DAPO, arXiv 2503.14476, section 3.3). "sequence": every
    trajectory counts the same (GRPO, arXiv 2402.03300, equation 3). "constant": every token counts
    1 / (trajectories · constant), whatever the lengths (Dr. GRPO, arXiv 2503.20783). The first two sum
    to 1 over the counted tokens of a mini-batch, however it is split for memory.

    Gradients are averaged over processes, so what is divided by, the number of counted tokens or trajectories, is
    its `mean` over processes: the average is then the gradient of one process with all their trajectories.
    """
    counted_N = counted_N.float()
    own_N = lengths_N.clamp(min=1) if normalisation == "sequence" else torch.ones_like(counted_N)
    total = mean((counted_N * lengths_N if normalisation == "token" else counted_N).sum())
    scale = constant if normalisation == "constant" else 1
    return counted_N / (own_N * scale * (total if total > 0 else 1))


def turn_factors(turn_NC: Tensor, weights: Sequence[float]) -> Tensor:
    """(N, C): the weight of each token's turn; the last one serves all later turns."""
    table = torch.tensor(weights, device=turn_NC.device)
    return table[turn_NC.clamp(max=len(weights) - 1)]


def weighted_sum(values_NC: Tensor, mask_NC: Tensor, weights_N: Tensor) -> Tensor:
    """The masked sum of token values under `token_weights`."""
    return (values_NC.masked_fill(~mask_NC, 0.0).sum(1) * weights_N).sum()
