"""Attention over one packed sequence: prompts that groups share, then the rows that continue them, without padding.

A continuation looks at its own prompt and, causally, at itself. Both looks are flash attention, joined by their
log-sum-exps; the backward pass calls each look's kernel with the joint output and log-sum-exp, by which its gradients
are those of the whole softmax. So no token is passed twice, no prompt is copied, and no mask is made.

Shapes: H heads, K key-value heads, T packed tokens, E width of a head.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache, cached_property
from itertools import accumulate, pairwise
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn.attention.flex_attention import BlockMask, create_block_mask, flex_attention

_flash = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
_flash_backward = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward


@dataclass(frozen=True)
class Packing:
    """How one sequence is made up: all prompts one after the other, then all continuations, prompt by prompt.

    Args:
        prompts: Tokens of each prompt.
        rows: For each prompt the tokens of the continuations that share it.
    """

    prompts: Sequence[int]
    rows: Sequence[Sequence[int]]
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))

    @cached_property
    def prompt_spans(self) -> list[slice]:
        return _spans(self.prompts, 0)

    @cached_property
    def group_spans(self) -> list[slice]:
        """Of each prompt all of its continuations."""
        return _spans([sum(lengths) for lengths in self.rows], sum(self.prompts))

    @cached_property
    def row_spans(self) -> list[slice]:
        return _spans([length for lengths in self.rows for length in lengths], sum(self.prompts))

    @cached_property
    def pieces(self) -> list[slice]:
        """What is passed causally, one at a time: all prompts and all rows that are not empty."""
        return [span for span in (*self.prompt_spans, *self.row_spans) if span.stop > span.start]

    @cached_property
    def looks(self) -> list[tuple[slice, slice]]:
        """The continuations of each prompt, and the prompt that they look back at."""
        pairs = zip(self.group_spans, self.prompt_spans)
        return [(group, prompt) for group, prompt in pairs if group.stop > group.start and prompt.stop > prompt.start]

    @cached_property
    def block_mask(self) -> BlockMask:
        """The same for FlexAttention: a token sees its own piece up to itself, and its prompt."""
        lengths = torch.tensor([span.stop - span.start for span in (*self.prompt_spans, *self.row_spans)])
        piece_T = torch.arange(len(lengths)).repeat_interleave(lengths).to(self.device)
        prompt_of = [i for i, rows in enumerate(self.rows) for _ in rows]
        prompt_T = torch.tensor([*range(len(self.prompts)), *prompt_of], device=self.device)[piece_T]
        total = len(piece_T)

        def sees(batch: Tensor, head: Tensor, q: Tensor, k: Tensor) -> Tensor:
            return (q >= k) & ((piece_T[q] == piece_T[k]) | (prompt_T[q] == piece_T[k]))

        return create_block_mask(sees, None, None, total, total, device=str(self.device))


def _spans(lengths: Sequence[int], start: int) -> list[slice]:
    ends = list(accumulate(lengths, initial=start))
    return [slice(a, b) for a, b in pairwise(ends)]


def packed_attention(q_1HTE: Tensor, k_1KTE: Tensor, v_1KTE: Tensor, packing: Packing, scale: float) -> Tensor:
    """(1, T, H, E): flash attention on CPUs, FlexAttention elsewhere; under autocast in its type."""
    kind = q_1HTE.device.type
    if torch.is_autocast_enabled(kind):
        dtype = torch.get_autocast_dtype(kind)
        q_1HTE, k_1KTE, v_1KTE = q_1HTE.to(dtype), k_1KTE.to(dtype), v_1KTE.to(dtype)
    if kind == "cpu":
        return _Shared.apply(q_1HTE, k_1KTE, v_1KTE, packing, scale)
    return compiled_flex()(
        q_1HTE, k_1KTE, v_1KTE, block_mask=packing.block_mask, scale=scale, enable_gqa=True
    ).transpose(1, 2)


@cache
def compiled_flex() -> Any:
    return torch.compile(flex_attention, dynamic=True)


class _Shared(torch.autograd.Function):
    """The CPU kernel's looks, joined."""

    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor, packing: Packing, scale: float) -> Tensor:
        _, heads, total, width = q.shape
        out = torch.empty(1, total, heads, width, dtype=q.dtype).transpose(1, 2)
        lse_HT = torch.empty(heads, total, dtype=torch.float64 if q.dtype == torch.float64 else torch.float32)
        for at in packing.pieces:
            out[:, :, at], lse_HT[:, at] = _flash(q[:, :, at], k[:, :, at], v[:, :, at], 0.0, True, scale=scale)
        for group, prompt in packing.looks:
            back, back_lse = _flash(q[:, :, group], k[:, :, prompt], v[:, :, prompt], 0.0, False, scale=scale)
            _join(out[0, :, group], lse_HT[:, group], back[0], back_lse[0])
        ctx.save_for_backward(q, k, v, out, lse_HT)
        ctx.packing, ctx.scale = packing, scale
        return out.transpose(1, 2)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_1THE: Tensor) -> tuple[Tensor | None, ...]:
        q, k, v, out, lse_HT = ctx.saved_tensors
        grad, lse = grad_1THE.transpose(1, 2), lse_HT[None]
        wholes = [torch.empty_like(x) for x in (q, k, v)]

        def look(at: slice, keys: slice, causal: bool) -> tuple[Tensor, ...]:
            queries = grad[:, :, at], q[:, :, at], k[:, :, keys], v[:, :, keys], out[:, :, at], lse[:, :, at]
            return _flash_backward(*queries, 0.0, causal, scale=ctx.scale)

        for at in ctx.packing.pieces:
            for whole, part in zip(wholes, look(at, at, causal=True)):
                whole[:, :, at] = part
        for group, prompt in ctx.packing.looks:
            for whole, span, part in zip(wholes, (group, prompt, prompt), look(group, prompt, causal=False)):
                whole[:, :, span] += part
        return *wholes, None, None


def _join(out_HTE: Tensor, lse_HT: Tensor, other_HTE: Tensor, other_lse_HT: Tensor) -> None:
    """Into the first look's results, in place, those of both."""
    joint_HT = torch.logaddexp(lse_HT, other_lse_HT)
    own, other = (lse_HT - joint_HT).exp()[..., None], (other_lse_HT - joint_HT).exp()[..., None]
    out_HTE.copy_(out_HTE * own + other_HTE * other)
    lse_HT.copy_(joint_HT)
