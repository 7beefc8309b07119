"""The kernels of GPUs on a CPU: what they are called with, against what they are documented to compute."""

from contextlib import contextmanager, nullcontext
from dataclasses import replace
from itertools import pairwise
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from mgpo.policy.passes import attention, kernels
from mgpo.policy.passes.attention import packed_attention, separate_attention
from mgpo.policy.passes.kernels import EFFICIENT, FLASH, kernel_of
from mgpo.policy.passes.packing import pieces
from tests.policy.test_attention import KV, QUERY, SCALE, packing_of, packings, plain, states


def scores(q_QHE, k_SHE, causal: bool, scale: float):
    """(H, Q, S); masked ones at minus infinity. Where there are fewer queries than keys they are the last ones."""
    found = torch.einsum("qhe,she->hqs", q_QHE, k_SHE) * scale
    if not causal:
        return found
    queries, keys = found.shape[1:]
    return found.masked_fill(torch.ones(queries, keys, dtype=torch.bool).triu(keys - queries + 1), -torch.inf)


def for_all(q, x_SKE):
    return x_SKE.repeat_interleave(q.shape[1] // x_SKE.shape[1], 1)


def piece_forward(q, k, v, causal, scale):
    found = scores(q, for_all(q, k), causal, scale)
    return torch.einsum("hqs,she->qhe", found.softmax(-1), for_all(q, v)), found.logsumexp(-1)


def piece_backward(grad, q, k, v, out, lse_HQ, causal, scale):
    """By the given output and log-sum-exp, whatever else they come from (FlashAttention 2, algorithm 2)."""
    probs = (scores(q, for_all(q, k), causal, scale) - lse_HQ[..., None]).exp()
    dv = torch.einsum("hqs,qhe->she", probs, grad)
    of_probs = torch.einsum("qhe,she->hqs", grad, for_all(q, v))
    of_scores = probs * (of_probs - (grad * out).sum(-1).T[..., None]) * scale
    dq = torch.einsum("hqs,she->qhe", of_scores, for_all(q, k))
    dk = torch.einsum("hqs,qhe->she", of_scores, q)
    return dq, *(x.unflatten(1, (k.shape[1], -1)).sum(2) for x in (dk, dv))


class Stand:
    """Both GPU kernels, as torch documents them: cumulative lengths in int32, log-sum-exps (H, Q), and of the other
    (1, H, Q rounded up to 32) with infinities behind."""

    @staticmethod
    def spans(ends, longest):
        assert ends.dtype == torch.int32
        assert ends[0] == 0
        lengths = ends.diff()
        assert lengths.min() > 0
        assert lengths.max() == longest
        return [slice(int(a), int(b)) for a, b in pairwise(ends)]

    def _flash_attention_forward(self, q, k, v, cu_q, cu_k, max_q, max_k, dropout, causal, debug, *, scale):
        out, lse = torch.empty_like(q), torch.empty(q.shape[1], len(q), dtype=q.dtype)
        for at, keys in zip(self.spans(cu_q, max_q), self.spans(cu_k, max_k), strict=True):
            out[at], lse[:, at] = piece_forward(q[at], k[keys], v[keys], causal, scale)
        return out, lse, torch.zeros(2, dtype=torch.uint64), torch.zeros(0), torch.zeros(0)

    def _flash_attention_backward(
        self, grad, q, k, v, out, lse, cu_q, cu_k, max_q, max_k, dropout, causal, state, unused, *, scale
    ):
        dq, dk, dv = (torch.zeros_like(x) for x in (q, k, v))
        for at, keys in zip(self.spans(cu_q, max_q), self.spans(cu_k, max_k), strict=True):
            dq[at], dk[keys], dv[keys] = piece_backward(
                grad[at], q[at], k[keys], v[keys], out[at], lse[:, at], causal, scale
            )
        return dq, dk, dv

    def _scaled_dot_product_efficient_attention(self, q, k, v, bias, wanted, dropout, causal, *, scale):
        assert q.shape[1] == k.shape[1]
        out, lse = piece_forward(*(x[0].transpose(0, 1) for x in (q, k, v)), causal, scale)
        padded = torch.full((1, q.shape[1], -(-q.shape[2] // 32) * 32), torch.inf, dtype=q.dtype)
        padded[0, :, : q.shape[2]] = lse
        return out.transpose(0, 1)[None], padded, torch.zeros(()), torch.zeros(())

    def _scaled_dot_product_efficient_attention_backward(
        self, grad, q, k, v, bias, out, lse, seed, offset, dropout, wanted, causal, *, scale
    ):
        assert lse.shape[-1] % 32 == 0
        assert (lse[..., q.shape[2] :] == torch.inf).all()
        inputs = (x[0].transpose(0, 1) for x in (grad, q, k, v, out))
        parts = piece_backward(*inputs, lse[0, :, : q.shape[2]], causal, scale)
        return *(x.transpose(0, 1)[None] for x in parts), None


@contextmanager
def standing_in(kernel):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(kernels, "aten", Stand())
        patch.setattr(attention, "kernel_of", lambda q: kernel)
        yield


of_gpus = pytest.mark.parametrize("kernel", [FLASH, EFFICIENT], ids=["flash", "efficient"])


@of_gpus
@settings(max_examples=20, deadline=None)
@given(groups=packings, seed=st.integers(0, 99))
def test_kernels_of_gpus_see_what_those_of_cpus_see(kernel, groups, seed):
    packing = packing_of(groups)
    q, k, v = states(sum(packing.prompts) + sum(map(sum, packing.rows)), seed)
    expected = plain(q, k, v, groups)
    with standing_in(kernel):
        assert_same(packed_attention(q, k, v, packing, SCALE), expected, (q, k, v))


def assert_same(got, expected, inputs) -> None:
    """Values and gradients."""
    assert torch.allclose(got, expected, atol=1e-12)
    upstream = torch.randn_like(expected)
    for mine, theirs in zip(*(torch.autograd.grad(out, inputs, upstream) for out in (got, expected))):
        assert torch.allclose(mine, theirs, atol=1e-12)


@pytest.mark.parametrize("kernel", [None, FLASH], ids=["cpu", "flash"])
@settings(max_examples=20, deadline=None)
@given(lengths=st.lists(st.integers(0, 6), min_size=1, max_size=5).filter(any))
def test_pictures_and_windows_see_themselves_alone(kernel, lengths):
    q, k, v = states(sum(lengths), 0)
    k, v = (x.repeat_interleave(QUERY // KV, 1).detach().requires_grad_() for x in (k, v))
    apart = zip(*(x.split(lengths, 2) for x in (q, k, v)))
    expected = torch.cat([F.scaled_dot_product_attention(*piece, scale=SCALE) for piece in apart], 2).transpose(1, 2)
    with standing_in(kernel) if kernel else nullcontext():
        got = separate_attention(q, k, v, pieces(torch.tensor([0, *lengths]).cumsum(0).int()), SCALE)
        assert_same(got, expected, (q, k, v))


@pytest.mark.parametrize(("dtype", "width"), [(torch.bfloat16, 8), (torch.bfloat16, 5), (torch.float32, 8)])
def test_torch_s_own_operators_take_these_arguments(monkeypatch, dtype, width):
    """Without values: a device that knows shapes alone checks names, order, types and what comes back."""
    monkeypatch.setattr(torch, "is_autocast_enabled", lambda kind: False)  # that device knows none
    packing = replace(packing_of([(5, [3, 4]), (2, [6])]), device=torch.device("meta"))
    q, k, v = (
        torch.empty(1, heads, 20, width, dtype=dtype, device="meta").requires_grad_() for heads in (QUERY, KV, KV)
    )
    out = packed_attention(q, k, v, packing, SCALE)
    assert out.shape == (1, 20, QUERY, width)
    for grad, of in zip(torch.autograd.grad(out, (q, k, v), torch.empty_like(out)), (q, k, v)):
        assert grad.shape == of.shape


def test_which_kernel_takes_what():
    def heads(dtype, width, device="meta"):
        return torch.empty(1, 2, 3, width, dtype=dtype, device=device)

    assert kernel_of(heads(torch.bfloat16, 128)) is kernel_of(heads(torch.float16, 8)) is FLASH
    assert kernel_of(heads(torch.float32, 128)) is kernel_of(heads(torch.bfloat16, 512)) is EFFICIENT
    assert kernel_of(heads(torch.bfloat16, 128, "cpu")) not in (FLASH, EFFICIENT)


@pytest.mark.parametrize(("generation", "kernel"), [((7, 5), EFFICIENT), ((8, 0), FLASH), ((9, 0), FLASH)])
def test_gpus_before_ampere_have_no_flash(monkeypatch, generation, kernel):
    device = torch.device("cuda", sum(generation))  # which is looked at once
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda of: generation)
    q: Any = SimpleNamespace(device=device, dtype=torch.float16, shape=(1, 2, 3, 128))
    assert kernel_of(q) is kernel


def test_a_device_without_kernels_is_refused():
    with pytest.raises(kernels.UserError, match="not on mps"):
        kernels.check_kernel("mps")
