# ruff: noqa: ANN001, ANN202 - what Triton compiles has pointers, numbers and tiles, which it tells apart itself
# pyright: reportMissingImports=false, reportIndexIssue=false
"""Attention of sampled tokens on GPUs: a row's queries over its prompt and its own tokens, in one softmax.

One token a row leaves a GPU idle unless its keys are shared out (flash decoding). Every program of the first kernel
sees a span of the prompt's keys or of the row's own, and leaves its output with its log-sum-exp; the second one joins
them. Rows of a group read their prompt where it lies, most of the time from the device's cache.

Shapes: N rows, H heads, K key-value heads, G = H / K, B prompts, P prompt tokens, S columns for own tokens, E width of
a head, C spans.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

SPAN = 256  # keys of a program
BLOCK_BYTES = 16384  # of the keys that it has before it at a time


def step_attention(
    q_NHE: Tensor,
    prompt: tuple[Tensor, Tensor, Tensor, Tensor],
    own: tuple[Tensor, Tensor, Tensor, Tensor],
    scale: float,
) -> Tensor:
    """What each row's token takes from its prompt and from its own tokens: (N, H, E).

    Args:
        prompt: Keys and values (B, K, P, E), which of them are no padding (B, P), and in int32 the prompt that each row
            continues (N,).
        own: Keys and values (N, K, S, E), which of them a row sees (N, S), and the last column in use (1,).
        scale: Multiplies the products of queries and keys.
    """
    rows, heads, width = q_NHE.shape
    prompt_keys, prompt_values, prompt_valid_BP, owner_N = prompt
    keys, values, valid_NS, column = own
    shared = keys.shape[1]
    spans = [triton.cdiv(x.shape[2], SPAN) for x in (prompt_keys, keys)]
    part_NHCE = q_NHE.new_empty(rows, heads, sum(spans), width, dtype=torch.float32)
    lse_NHC = part_NHCE.new_empty(part_NHCE.shape[:3])
    out_NHE = q_NHE.new_empty(q_NHE.shape)
    padded = max(16, triton.next_power_of_2(width))  # what matrix units take at least
    block = min(64, max(16, BLOCK_BYTES // (padded * keys.element_size())))
    with torch.cuda.device(q_NHE.device):  # Triton launches on the current one
        _see_spans[rows, shared, sum(spans)](
            q_NHE, prompt_keys, prompt_values, prompt_valid_BP.view(torch.uint8), owner_N, keys, values,
            valid_NS.view(torch.uint8), column, part_NHCE, lse_NHC, scale, prompt_keys.shape[2], sum(spans), spans[0],
            *q_NHE.stride()[:2], *prompt_keys.stride()[:2], *keys.stride()[:2], prompt_valid_BP.stride(0),
            valid_NS.stride(0), heads // shared, max(16, triton.next_power_of_2(heads // shared)), width, padded,
            SPAN, block,
        )  # fmt: skip
        _join_spans[rows, heads](
            part_NHCE, lse_NHC, out_NHE, sum(spans), triton.next_power_of_2(sum(spans)), width, padded
        )
    return out_NHE


@triton.jit
def _see_spans(
    q_NHE, prompt_keys, prompt_values, prompt_valid, owner_N, own_keys, own_values, own_valid, column, part_NHCE,
    lse_NHC, scale, prompt_end, spans, prompt_spans, q_row, q_head, prompt_row, prompt_head, own_row, own_head,
    prompt_valid_row, own_valid_row, G: tl.constexpr, G_PADDED: tl.constexpr, E: tl.constexpr, E_PADDED: tl.constexpr,
    SPAN: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    row, head, span = tl.program_id(0).to(tl.int64), tl.program_id(1), tl.program_id(2)
    g, e, s = tl.arange(0, G_PADDED), tl.arange(0, E_PADDED), tl.arange(0, BLOCK)
    inside_GE = (g < G)[:, None] & (e < E)[None, :]
    q_GE = tl.load(q_NHE + row * q_row + (head * G + g)[:, None] * q_head + e[None, :], mask=inside_GE, other=0.0)
    if span < prompt_spans:
        owner = tl.load(owner_N + row).to(tl.int64)
        keys, values = (
            prompt_keys + owner * prompt_row + head * prompt_head,
            prompt_values + owner * prompt_row + head * prompt_head,
        )
        valid, first, end = prompt_valid + owner * prompt_valid_row, span * SPAN, prompt_end
    else:
        keys, values = own_keys + row * own_row + head * own_head, own_values + row * own_row + head * own_head
        valid, first = own_valid + row * own_valid_row, (span - prompt_spans) * SPAN
        end = tl.load(column).to(tl.int32) + 1
    end = tl.minimum(first + SPAN, end)
    peak_G = tl.full([G_PADDED], -float("inf"), tl.float32)
    total_G = tl.zeros([G_PADDED], tl.float32)
    sum_GE = tl.zeros([G_PADDED, E_PADDED], tl.float32)
    for start in range(first, end, BLOCK):
        at = start + s
        seen = tl.load(valid + at, mask=at < end, other=0) != 0
        place_SE, read_SE = at[:, None] * E + e[None, :], seen[:, None] & (e < E)[None, :]
        k_SE = tl.load(keys + place_SE, mask=read_SE, other=0.0)
        v_SE = tl.load(values + place_SE, mask=read_SE, other=0.0)
        score_GS = tl.dot(q_GE, tl.trans(k_SE), input_precision="ieee") * scale
        score_GS = tl.where(seen[None, :], score_GS, -float("inf"))
        next_G = tl.maximum(peak_G, tl.max(score_GS, 1))
        level_G = tl.where(next_G == -float("inf"), 0.0, next_G)  # so far nothing was seen
        share_GS, shrunk_G = tl.exp(score_GS - level_G[:, None]), tl.exp(peak_G - level_G)
        total_G = total_G * shrunk_G + tl.sum(share_GS, 1)
        sum_GE = sum_GE * shrunk_G[:, None] + tl.dot(share_GS.to(v_SE.dtype), v_SE, input_precision="ieee")
        peak_G = next_G
    part = (row * tl.num_programs(1) * G + head * G + g) * spans + span
    anything_G = total_G > 0
    total_G = tl.where(anything_G, total_G, 1.0)
    tl.store(lse_NHC + part, tl.where(anything_G, peak_G + tl.log(total_G), -float("inf")), mask=g < G)
    tl.store(part_NHCE + part[:, None] * E + e[None, :], sum_GE / total_G[:, None], mask=inside_GE)


@triton.jit
def _join_spans(
    part_NHCE, lse_NHC, out_NHE, spans, SPANS_PADDED: tl.constexpr, E: tl.constexpr, E_PADDED: tl.constexpr
):
    head = tl.program_id(0).to(tl.int64) * tl.num_programs(1) + tl.program_id(1)
    c, e = tl.arange(0, SPANS_PADDED), tl.arange(0, E_PADDED)
    lse_C = tl.load(lse_NHC + head * spans + c, mask=c < spans, other=-float("inf"))
    share_C = tl.exp(lse_C - tl.max(lse_C, 0))
    read_CE = (c < spans)[:, None] & (e < E)[None, :]
    part_CE = tl.load(part_NHCE + (head * spans + c)[:, None] * E + e[None, :], mask=read_CE, other=0.0)
    out_E = tl.sum(part_CE * (share_C / tl.sum(share_C, 0))[:, None], 0)
    tl.store(out_NHE + head * E + e, out_E.to(out_NHE.dtype.element_ty), mask=e < E)
