"""Attention over a packed sequence, against one mask over everything in float64."""

from contextlib import nullcontext

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F
from torch.torch_version import TorchVersion

from mgpo.errors import UserError
from mgpo.policy.passes.attention import packed_attention
from mgpo.policy.passes.batch import collate
from mgpo.policy.passes.kernels import check_kernel
from mgpo.policy.passes.packing import Packing
from tests.policy.test_micro_batches import group

KV, QUERY, WIDTH = 2, 4, 8
SCALE = WIDTH**-0.5
packings = st.lists(
    st.tuples(st.integers(0, 9), st.lists(st.integers(0, 7), min_size=1, max_size=4)), min_size=1, max_size=3
).filter(lambda groups: sum(prompt + sum(rows) for prompt, rows in groups) > 0)


def packing_of(groups) -> Packing:
    return Packing([prompt for prompt, _ in groups], [rows for _, rows in groups], [])


def states(total: int, seed: int, dtype: torch.dtype = torch.float64) -> list[torch.Tensor]:
    torch.manual_seed(seed)
    return [torch.randn(1, heads, total, WIDTH, dtype=dtype).requires_grad_() for heads in (QUERY, KV, KV)]


def plain(q, k, v, groups) -> torch.Tensor:
    """Token by token, from what the design says: its own piece up to itself, and the whole of its prompt."""
    pieces = [("prompt", i) for i, (prompt, _) in enumerate(groups) for _ in range(prompt)]
    pieces += [
        ("row", (i, n)) for i, (_, rows) in enumerate(groups) for n, length in enumerate(rows) for _ in range(length)
    ]
    total = len(pieces)
    mask = torch.zeros(total, total, dtype=torch.bool)
    for a, (kind, where) in enumerate(pieces):
        for b in range(a + 1):
            mask[a, b] = pieces[b] == (kind, where) or (kind == "row" and pieces[b] == ("prompt", where[0]))
    k, v = (x.repeat_interleave(QUERY // KV, 1) for x in (k, v))
    return F.scaled_dot_product_attention(q, k, v, attn_mask=mask, scale=SCALE).transpose(1, 2)


@settings(max_examples=30, deadline=None)
@given(packings, st.integers(0, 99))
def test_values_and_gradients_are_those_of_one_softmax(groups, seed):
    packing = packing_of(groups)
    q, k, v = states(sum(packing.prompts) + sum(map(sum, packing.rows)), seed)
    got, expected = packed_attention(q, k, v, packing, SCALE), plain(q, k, v, groups)
    assert torch.allclose(got, expected, atol=1e-12)
    upstream = torch.randn_like(expected)
    for mine, theirs in zip(
        torch.autograd.grad(got, (q, k, v), upstream), torch.autograd.grad(expected, (q, k, v), upstream)
    ):
        assert torch.allclose(mine, theirs, atol=1e-12)


def test_under_autocast_it_computes_in_the_lower_precision():
    groups = [(5, [3, 4])]
    q, k, v = states(12, 0, torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        got = packed_attention(q, k, v.bfloat16(), packing_of(groups), SCALE)
    assert got.dtype == torch.bfloat16
    assert torch.allclose(got.float(), plain(q, k, v, groups), atol=0.03)


def test_a_group_s_trajectories_have_to_be_next_to_each_other():
    a, b = group(3, [2, 2]), group(4, [2, 2])
    with pytest.raises(ValueError, match="next to each other"):
        collate([a[0], b[0], a[1]], lambda prompt, start: (torch.zeros(3, len(prompt.ids)), start), 0)


@pytest.mark.parametrize(
    ("kind", "version", "refused"), [("cpu", "2.8.1", True), ("cpu", "2.10.0", False), ("cuda", "2.6.0", False)]
)
def test_a_kernel_that_breaks_memory_is_not_used(monkeypatch, kind, version, refused):
    monkeypatch.setattr(torch, "__version__", TorchVersion(version))
    with pytest.raises(UserError, match=r"needs torch 2\.9") if refused else nullcontext():
        check_kernel(kind)
