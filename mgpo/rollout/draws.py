"""How tokens are drawn from logits: every row by numbers of its own, whatever its neighbours.

Shapes: N rows, V vocabulary, B blocks of it, W ids of a block.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from mgpo.errors import UserError

BLOCK = 128  # probabilities that are summed one after the other


@dataclass(frozen=True)
class Sampling:
    """How replies are drawn.

    Args:
        max_new_tokens: A reply is cut here.
        temperature: Divides the logits; 0 takes the likeliest token.
        top_p: Draw among the likeliest tokens that hold this much of the probability. Log-probs stay those of the
            whole distribution under temperature, before this cut: as the trainer's are, whose ratio to them is one
            before the first update. Where tokens were cut, draws are likelier than that, and nothing corrects it.
    """

    max_new_tokens: int = 64
    temperature: float = 1.0
    top_p: float = 1.0

    def __post_init__(self) -> None:
        if not 0 <= self.temperature < math.inf:
            raise UserError(f"sampling.temperature is {self.temperature}; it is 0 (greedy) or more")
        if not 0 < self.top_p <= 1:
            raise UserError(f"sampling.top_p is {self.top_p}; it is a share above 0, and 1 at most")
        if self.max_new_tokens < 1:
            raise UserError(f"sampling.max_new_tokens is {self.max_new_tokens}; a reply has at least 1 token")


def choose(logits_NV: Tensor, uniform_N: Tensor, sampling: Sampling) -> tuple[Tensor, Tensor]:
    """Ids drawn by inverting the cumulative distribution, and their log-probs under temperature, before top-p.

    In float32 log_softmax adds up 152,000 terms with an error of 1e-4 nats, logsumexp with one of 2e-6.
    """
    scaled_NV = logits_NV if sampling.temperature in (0, 1) else logits_NV / sampling.temperature
    total_N1 = scaled_NV.logsumexp(-1, keepdim=True)
    if sampling.temperature == 0:
        id_N = scaled_NV.argmax(-1)
    else:
        probs_NV = (scaled_NV - total_N1).exp()
        if sampling.top_p < 1:
            probs_NV = _nucleus(probs_NV, sampling.top_p)
        id_N = _inverted(probs_NV, uniform_N.double())
        id_N = id_N.where(id_N < len(logits_NV[0]), 0)  # only NaN leads out of the vocabulary; its log-prob is NaN too
    return id_N, (scaled_NV.gather(-1, id_N[:, None]) - total_N1).squeeze(-1)


def _inverted(probs_NV: Tensor, uniform_N: Tensor) -> Tensor:
    """Where the cumulative distribution exceeds that share of itself, (N,), summed in float64.

    A wide one is looked through block by block: a GPU sums along a row one number after the other.
    """
    width, share_N1 = probs_NV.shape[1], uniform_N[:, None]
    if width <= BLOCK**2:
        cdf_NV = probs_NV.cumsum(-1, dtype=torch.double)
        return torch.searchsorted(cdf_NV, share_N1 * cdf_NV[:, -1:], right=True).squeeze(-1)
    blocks_NBW = (F.pad(probs_NV, (0, -width % BLOCK)) if width % BLOCK else probs_NV).unflatten(1, (-1, BLOCK))
    ends_NB = blocks_NBW.sum(-1, dtype=torch.double).cumsum(-1)
    sought_N1 = share_N1 * ends_NB[:, -1:]
    block_N1 = torch.searchsorted(ends_NB, sought_N1, right=True).clamp_(max=ends_NB.shape[1] - 1)
    inside_NW = blocks_NBW.gather(1, block_N1[..., None].expand(-1, -1, BLOCK))[:, 0].cumsum(-1, dtype=torch.double)
    left_N1 = sought_N1 - F.pad(ends_NB, (1, 0)).gather(1, block_N1)
    left_N1 = left_N1.minimum(inside_NW[:, -1:] * (1 - 1e-15))  # the two sums of a block differ by rounding
    return (block_N1 * BLOCK + torch.searchsorted(inside_NW, left_N1, right=True)).squeeze(-1)


def _nucleus(probs_NV: Tensor, top_p: float) -> Tensor:
    """Zero all but the smallest set of likeliest tokens that holds `top_p`."""
    sorted_NV, order_NV = probs_NV.sort(-1, descending=True)
    before_NV = sorted_NV.cumsum(-1) - sorted_NV
    return torch.zeros_like(probs_NV).scatter(-1, order_NV, sorted_NV.masked_fill(before_NV >= top_p, 0.0))


def uniform(seeds: Sequence[int], sampling: Sampling) -> Tensor:
    """Numbers (rows, max_new_tokens) in [0, 1), each row from its own seed."""
    return torch.stack(
        [torch.rand(sampling.max_new_tokens, generator=torch.Generator().manual_seed(seed)) for seed in seeds]
    )
