"""Logits in float32, whatever the weights' type."""

import pytest
import torch
from torch import nn

from mgpo.policy.passes.head import widen


@pytest.fixture
def head():
    torch.manual_seed(0)
    head = nn.Linear(64, 500, bias=False, dtype=torch.bfloat16)
    widen(head)
    return head


def test_logits_are_not_rounded_to_the_weights_type(head):
    hidden = (30 * torch.randn(2, 3, 64)).bfloat16()
    exact = hidden.double() @ head.weight.double().T
    assert head(hidden).dtype == torch.float32 and head(hidden).shape == (2, 3, 500)
    assert torch.allclose(head(hidden).double(), exact, atol=1e-3)
    assert (exact.bfloat16().double() - exact).abs().max() > 0.1  # what rounding them would do


def test_gradients_reach_states_and_weights(head):
    hidden = torch.randn(5, 64).bfloat16().requires_grad_()
    upstream = torch.randn(5, 500)
    got = torch.autograd.grad(head(hidden), (hidden, head.weight), upstream)
    wide = [x.detach().double().requires_grad_() for x in (hidden, head.weight)]
    exact = torch.autograd.grad(wide[0] @ wide[1].T, wide, upstream.double())
    for mine, theirs in zip(got, exact):
        assert (mine.double() - theirs).norm() < 0.01 * theirs.norm()
    head.weight.requires_grad_(False)
    assert torch.equal(torch.autograd.grad(head(hidden), hidden, upstream)[0], got[0])


def test_under_autocast_factors_are_narrow_and_logits_wide():
    torch.manual_seed(0)
    head = nn.Linear(64, 500, bias=False)
    widen(head)
    hidden = 30 * torch.randn(4, 64)
    with torch.autocast("cpu", torch.bfloat16):
        logits = head(hidden)
    exact = hidden.bfloat16().double() @ head.weight.bfloat16().double().T
    assert logits.dtype == torch.float32 and torch.allclose(logits.double(), exact, atol=1e-3)


def test_in_float32_nothing_changes():
    head = nn.Linear(16, 40, bias=False)
    hidden = torch.randn(3, 16)
    before = head(hidden)
    widen(head)
    assert torch.equal(head(hidden), before)
