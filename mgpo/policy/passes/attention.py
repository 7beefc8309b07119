"""Attention over packed sequences: looks of several kinds, each by a fused kernel, joined by their log-sum-exps.

The backward pass calls each look's kernel with the joint output and log-sum-exp, by which its gradients are those of
the whole softmax. So no token is passed twice, no prompt is copied, no mask is made, and nothing is compiled.

Shapes: H heads, K key-value heads, T packed tokens, E width of a head.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from mgpo.policy.passes.kernels import FLASH, aligned, kernel_of
from mgpo.policy.passes.packing import Looks, Packing

Outputs = list[tuple[Tensor, Tensor]]  # of calls, with their log-sum-exps
_OUTPUTS: ContextVar[Outputs | None] = ContextVar("outputs", default=None)


@contextmanager
def kept_outputs(outputs: Outputs) -> Iterator[None]:
    """Within it a call leaves its output in the empty list, or takes it from there instead of computing it again: for
    layers that are passed twice and attend once."""
    before = _OUTPUTS.set(outputs)
    try:
        yield
    finally:
        _OUTPUTS.reset(before)


def packed_attention(q_1HTE: Tensor, k_1KTE: Tensor, v_1KTE: Tensor, packing: Packing, scale: float) -> Tensor:
    """Attention over one packed sequence: every token sees its own piece up to itself, and its prompt.

    Args:
        q_1HTE: Queries; keys and values may have fewer heads.
        packing: How the sequence is made up.
        scale: Multiplies the products of queries and keys.

    Returns:
        (1, T, H, E); under autocast in its type.
    """
    return _joined(q_1HTE, k_1KTE, v_1KTE, packing.looks, scale)


def separate_attention(q_1HTE: Tensor, k_1HTE: Tensor, v_1HTE: Tensor, looks: Looks, scale: float) -> Tensor:
    """Attention of pieces at the whole of themselves, as pictures see themselves and windows of them: (1, T, H, E).

    One call for all pieces where a kernel takes them so, else one for all of the same length.
    """
    if kernel_of(q_1HTE) is FLASH:
        return _joined(q_1HTE, k_1HTE, v_1HTE, [looks], scale)
    seen = []
    for length, places in looks.by_length:
        q, k, v = (x[0, :, places].unflatten(1, (-1, length)).transpose(0, 1) for x in (q_1HTE, k_1HTE, v_1HTE))
        seen.append(F.scaled_dot_product_attention(q, k, v, scale=scale).transpose(1, 2).flatten(0, 1))
    return seen[0][None] if len(seen) == 1 else torch.cat(seen)[None, looks.from_lengths]


def _joined(q_1HTE: Tensor, k_1KTE: Tensor, v_1KTE: Tensor, looks: Sequence[Looks], scale: float) -> Tensor:
    kind, width = q_1HTE.device.type, q_1HTE.shape[-1]
    if torch.is_autocast_enabled(kind):
        dtype = torch.get_autocast_dtype(kind)
        q_1HTE, k_1KTE, v_1KTE = q_1HTE.to(dtype), k_1KTE.to(dtype), v_1KTE.to(dtype)
    return _Joined.apply(*aligned(q_1HTE, k_1KTE, v_1KTE), looks, scale)[..., :width]


class _Joined(torch.autograd.Function):
    """Looks of several kinds in one softmax. Those of the first kind are of all queries, in order."""

    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor, looks: Sequence[Looks], scale: float) -> Tensor:
        kept = _OUTPUTS.get()
        if kept:
            out, lse = kept.pop()
        else:
            out, lse = _look(q, k, v, looks, scale)
            if kept is not None:
                kept.append((out, lse))
        ctx.save_for_backward(q, k, v, out, lse)
        ctx.looks, ctx.scale = looks, scale
        return out.transpose(1, 2)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_1THE: Tensor) -> tuple[Tensor | None, ...]:
        q, k, v, out, lse = ctx.saved_tensors
        sums = torch.zeros_like(q), torch.zeros_like(k), torch.zeros_like(v)
        for looks in ctx.looks:
            kernel_of(q).backward(sums, grad_1THE.transpose(1, 2), q, k, v, out, lse, looks, ctx.scale)
        return *sums, None, None


def _look(q: Tensor, k: Tensor, v: Tensor, looks: Sequence[Looks], scale: float) -> tuple[Tensor, Tensor]:
    kernel = kernel_of(q)
    out, lse = kernel.forward(q, k, v, looks[0], scale)
    for more in looks[1:]:
        _join(out, lse, more.query_index, *kernel.forward(q, k, v, more, scale))
    return out, lse


def _join(out: Tensor, lse: Tensor, at: slice | Tensor, other: Tensor, other_lse: Tensor) -> None:
    """Put into output and log-sum-exp of the queries there those of two looks as one."""
    share = torch.sigmoid(other_lse - lse[:, :, at])[..., None].to(out.dtype)
    own = out[:, :, at].lerp_(other, share)  # a view, but of places that are not side by side
    if not isinstance(at, slice):
        out[:, :, at] = own
    lse[:, :, at] = torch.logaddexp(lse[:, :, at], other_lse)
