import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mgpo.objective import (
    clip_fraction,
    clipped_policy_loss,
    group_advantages,
    has_signal,
    kl_k3,
    token_weights,
    weighted_sum,
)  # fmt: skip

rewards = st.lists(st.sampled_from([0.0, 1.0]), min_size=2, max_size=8)


@given(rewards)
def test_advantages_are_centred_and_scaled(values):
    advantages = group_advantages(torch.tensor([values]))[0]
    assert float(advantages.sum()) == pytest.approx(0, abs=1e-4)
    if len(set(values)) > 1:
        assert float(advantages.square().mean()) == pytest.approx(1, rel=1e-3)
    else:
        assert not advantages.any()


def test_equal_rewards_give_exact_zeros():
    """0.1 has no exact mean in binary; a group without signal must have no gradient all the same."""
    rewards_BG = torch.tensor([[0.1] * 7, [0.0] * 7, [0.0, 1.0] + [0.0] * 5])
    assert has_signal(rewards_BG).tolist() == [False, False, True]
    assert not group_advantages(rewards_BG, scale=False)[:2].any()


def test_without_scaling_they_are_reward_minus_mean():
    assert group_advantages(torch.tensor([[1.0, 0, 0, 0]]), scale=False).tolist() == [[0.75, -0.25, -0.25, -0.25]]


def reference_loss(logprobs, old, advantages, mask, low, high, normalisation):
    """Plain float64 loops over equations 7 (PPO) and 3 (GRPO)."""
    total, tokens = 0.0, sum(map(sum, mask))
    for lps, olds, advantage, chosen in zip(logprobs, old, advantages, mask):
        for lp, o, c in zip(lps, olds, chosen):
            if c:
                ratio = (lp - o).exp()
                kept = torch.minimum(ratio * advantage, torch.clamp(ratio, 1 - low, 1 + high) * advantage)
                total = total - kept / (tokens if normalisation == "token" else len(logprobs) * sum(chosen))
    return total


@pytest.mark.parametrize("normalisation", ["token", "sequence"])
def test_loss_and_gradient_equal_the_reference(normalisation):
    generator = torch.Generator().manual_seed(0)
    logprobs = torch.randn(4, 5, generator=generator) - 2
    old = logprobs + 0.5 * torch.randn(4, 5, generator=generator)
    advantages = torch.tensor([1.2, -0.7, 0.4, -1.0])
    mask = torch.rand(4, 5, generator=generator) < 0.6
    mask[:, 0] = True
    plain = logprobs.double().requires_grad_()
    expected = reference_loss(plain, old.double(), advantages.double(), mask.tolist(), 0.2, 0.3, normalisation)
    expected.backward()
    ours = logprobs.clone().requires_grad_()
    weights = token_weights(mask.sum(1), normalisation)
    loss = weighted_sum(clipped_policy_loss(ours, old, advantages, 0.2, 0.3), mask, weights)
    loss.backward()
    assert loss.item() == pytest.approx(expected.item(), rel=1e-5)
    assert torch.allclose(ours.grad.double(), plain.grad, rtol=1e-5, atol=1e-8)
    assert not ours.grad[~mask].any()


@pytest.mark.parametrize("normalisation", ["token", "sequence"])
def test_micro_batches_add_up(normalisation):
    values, mask = torch.randn(6, 4), torch.rand(6, 4) < 0.7
    mask[:, 0] = True
    weights = token_weights(mask.sum(1), normalisation)
    parts = sum(weighted_sum(values[i : i + 2], mask[i : i + 2], weights[i : i + 2]) for i in (0, 2, 4))
    assert torch.allclose(weighted_sum(values, mask, weights), parts)
    assert float(weighted_sum(torch.ones(6, 4), mask, weights)) == pytest.approx(1)


@given(st.floats(-300, 300), st.floats(-300, 300))
def test_k3_is_finite_and_not_negative(a, b):
    value = float(kl_k3(torch.tensor([[a]]), torch.tensor([[b]])))
    assert math.isfinite(value)
    assert value >= -1e-6


def test_k3_estimates_the_divergence():
    p, q = torch.tensor([0.5, 0.3, 0.2]), torch.tensor([0.4, 0.4, 0.2])
    estimate = (p * kl_k3(p.log()[None], q.log()[None])[0]).sum()
    assert float(estimate) == pytest.approx(float((p * (p / q).log()).sum()), abs=1e-6)


@given(st.floats(-1000, 1000))
def test_ratios_stay_finite(gap):
    logprobs = torch.tensor([[gap]], requires_grad=True)
    loss = clipped_policy_loss(logprobs, torch.zeros(1, 1), torch.tensor([-1.0]), 0.2, 0.2)
    loss.sum().backward()
    assert torch.isfinite(loss).all()
    assert torch.isfinite(logprobs.grad).all()


def test_clip_fraction_counts_policy_tokens_only():
    logprobs = torch.tensor([[0.0, 1.0, 1.0, 0.1]])
    mask = torch.tensor([[True, True, False, True]])
    assert float(clip_fraction(logprobs, torch.zeros(1, 4), mask, 0.2, 0.2)) == pytest.approx(1 / 3)
