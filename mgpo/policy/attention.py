"""Attention over one packed sequence: prompts that groups share, then the rows that continue them, without padding.

A continuation looks at its own prompt and, causally, at itself. Every look is flash attention; looks are joined by
their log-sum-exps, and the backward pass calls each look's kernel with the joint output and log-sum-exp, by which its
gradients are those of the whole softmax. So no token is passed twice, no prompt is copied, and no mask is made.

The last layer is asked for those tokens only from which something is drawn: the others have had their say in its keys.

Shapes: H heads, K key-value heads, T packed tokens, M tokens that are asked for, E width of a head.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache, cached_property
from itertools import accumulate, groupby, pairwise
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn.attention.flex_attention import BlockMask, create_block_mask, flex_attention

from mgpo.errors import UserError

_flash = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
_flash_backward = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward


class Look(NamedTuple):
    """Queries and the keys that they see: all of them, or, where both are the same tokens, those up to themselves."""

    queries: slice
    keys: slice
    causal: bool


@dataclass(frozen=True)
class Packing:
    """How one sequence is made up: all prompts one after the other, then all continuations, prompt by prompt.

    Args:
        prompts: Tokens of each prompt.
        rows: For each prompt the tokens of the continuations that share it.
        asked: Places of the tokens whose states are wanted of the last layer, all of them in continuations.
    """

    prompts: Sequence[int]
    rows: Sequence[Sequence[int]]
    asked: Sequence[int]
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
    def asked_M(self) -> Tensor:
        return torch.tensor(self.asked, dtype=torch.long, device=self.device)

    @cached_property
    def looks(self) -> list[Look]:
        """Of all tokens: first each prompt's and row's at itself, then the rows' at their prompts."""
        own = [Look(span, span, True) for span in (*self.prompt_spans, *self.row_spans)]
        back = [Look(group, prompt, False) for group, prompt in zip(self.group_spans, self.prompt_spans)]
        return _not_empty([*own, *back])

    @cached_property
    def asked_looks(self) -> list[Look]:
        """Of the asked tokens alone, which are counted by themselves: at their own run of neighbours, at what comes
        before that in their row, and at their prompt."""
        row_of = {place: span for span in self.row_spans for place in range(span.start, span.stop)}
        own, before, at = [], [], 0
        for (row, _), run in groupby(enumerate(self.asked), key=lambda p: (row_of[p[1]].start, p[1] - p[0])):
            places = [place for _, place in run]
            queries = slice(at, at := at + len(places))
            own.append(Look(queries, slice(places[0], places[-1] + 1), True))
            before.append(Look(queries, slice(row, places[0]), False))
        counts = [sum(group.start <= place < group.stop for place in self.asked) for group in self.group_spans]
        back = [Look(queries, prompt, False) for queries, prompt in zip(_spans(counts, 0), self.prompt_spans)]
        return _not_empty([*own, *before, *back])

    @cached_property
    def block_mask(self) -> BlockMask:
        """The same for FlexAttention: a token sees its own piece up to itself, and its prompt."""
        return self._block_mask(torch.arange(sum(self.prompts) + sum(map(sum, self.rows)), device=self.device))

    @cached_property
    def asked_block_mask(self) -> BlockMask:
        return self._block_mask(self.asked_M)

    def _block_mask(self, place_Q: Tensor) -> BlockMask:
        lengths = torch.tensor([span.stop - span.start for span in (*self.prompt_spans, *self.row_spans)])
        piece_T = torch.arange(len(lengths)).repeat_interleave(lengths).to(self.device)
        prompt_of = [i for i, rows in enumerate(self.rows) for _ in rows]
        prompt_T = torch.tensor([*range(len(self.prompts)), *prompt_of], device=self.device)[piece_T]

        def sees(batch: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
            place = place_Q[query]
            return (place >= key) & ((piece_T[place] == piece_T[key]) | (prompt_T[place] == piece_T[key]))

        return create_block_mask(sees, None, None, len(place_Q), len(piece_T), device=str(self.device))


def _spans(lengths: Sequence[int], start: int) -> list[slice]:
    return [slice(a, b) for a, b in pairwise(accumulate(lengths, initial=start))]


def _not_empty(looks: Sequence[Look]) -> list[Look]:
    return [look for look in looks if look.queries.stop > look.queries.start and look.keys.stop > look.keys.start]


def packed_attention(
    q_1HTE: Tensor, k_1KTE: Tensor, v_1KTE: Tensor, packing: Packing, scale: float, last: bool = False
) -> Tensor:
    """(1, T, H, E): flash attention on CPUs, FlexAttention elsewhere; under autocast in its type.

    In the last layer only the asked tokens look; the others are given zeros.
    """
    kind = q_1HTE.device.type
    if torch.is_autocast_enabled(kind):
        dtype = torch.get_autocast_dtype(kind)
        q_1HTE, k_1KTE, v_1KTE = q_1HTE.to(dtype), k_1KTE.to(dtype), v_1KTE.to(dtype)
    q = q_1HTE[:, :, packing.asked_M] if last else q_1HTE
    if kind == "cpu":
        out = _Looks.apply(q, k_1KTE, v_1KTE, packing.asked_looks if last else packing.looks, scale)
    else:
        mask = packing.asked_block_mask if last else packing.block_mask
        out = compiled_flex()(q, k_1KTE, v_1KTE, block_mask=mask, scale=scale, enable_gqa=True).transpose(1, 2)
    return q_1HTE.new_zeros(q_1HTE.transpose(1, 2).shape).index_copy(1, packing.asked_M, out) if last else out


@cache
def compiled_flex() -> Any:
    return torch.compile(flex_attention, dynamic=True)


def check_kernel(kind: str) -> None:
    """Before torch 2.9 the CPU kernel's backward pass wrote past its memory where heads share keys.

    Raises:
        UserError: On a CPU with such a torch.
    """
    if kind == "cpu" and torch.__version__ < "2.9":
        raise UserError(f"training on a CPU needs torch 2.9 or newer, not {torch.__version__}; install a newer one")


class _Looks(torch.autograd.Function):
    """The CPU kernel's looks, joined. A query's first look is at itself."""

    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor, looks: Sequence[Look], scale: float) -> Tensor:
        _, heads, total, width = q.shape
        out = torch.empty(1, total, heads, width, dtype=q.dtype).transpose(1, 2)
        lse = torch.empty(1, heads, total, dtype=torch.float64 if q.dtype == torch.float64 else torch.float32)
        for at, keys, causal in looks:
            seen, seen_lse = _flash(q[:, :, at], k[:, :, keys], v[:, :, keys], 0.0, causal, scale=scale)
            if causal:
                out[:, :, at], lse[:, :, at] = seen, seen_lse
            else:
                _join(out[:, :, at], lse[:, :, at], seen, seen_lse)
        ctx.save_for_backward(q, k, v, out, lse)
        ctx.looks, ctx.scale = looks, scale
        return out.transpose(1, 2)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_1THE: Tensor) -> tuple[Tensor | None, ...]:
        q, k, v, out, lse = ctx.saved_tensors
        grad = grad_1THE.transpose(1, 2)
        dq, dk, dv = torch.zeros_like(q), torch.zeros_like(k), torch.zeros_like(v)
        for at, keys, causal in ctx.looks:
            queries = grad[:, :, at], q[:, :, at], k[:, :, keys], v[:, :, keys], out[:, :, at], lse[:, :, at]
            parts = _flash_backward(*queries, 0.0, causal, scale=ctx.scale)
            for whole, span, part in zip((dq, dk, dv), (at, keys, keys), parts):
                whole[:, :, span] += part
        return dq, dk, dv, None, None


def _join(out: Tensor, lse: Tensor, other: Tensor, other_lse: Tensor) -> None:
    """Into earlier looks' results, in place, those of one more."""
    joint = torch.logaddexp(lse, other_lse)
    own, new = (lse - joint).exp()[..., None], (other_lse - joint).exp()[..., None]
    out.copy_(out * own + other * new)
    lse.copy_(joint)
