import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mgpo.errors import UserError
from mgpo.objective import (
    Objective,
    group_advantages,
    has_signal,
    kl_k1,
    kl_k2,
    kl_k3,
    ppo_loss,
    token_weights,
    weighted_sum,
)

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
    assert has_signal(rewards_BG, torch.ones(3, 7, dtype=torch.bool)).tolist() == [False, False, True]
    assert not group_advantages(rewards_BG, scale=False)[:2].any()


def test_without_scaling_they_are_reward_minus_mean():
    assert group_advantages(torch.tensor([[1.0, 0, 0, 0]]), scale=False).tolist() == [[0.75, -0.25, -0.25, -0.25]]


def test_leave_one_out_subtracts_the_mean_of_the_others():
    rewards = torch.tensor([[1.0, 0, 0, 0.5]])
    ours = group_advantages(rewards, scale=False, baseline="leave_one_out")[0]
    others = [rewards[0, i] - rewards[0][torch.arange(4) != i].mean() for i in range(4)]
    assert torch.allclose(ours, torch.stack(others))


@given(rewards, st.data())
def test_masked_rollouts_change_nothing(values, data):
    """Statistics over the counted rollouts equal those of a group that holds only them."""
    masked = data.draw(st.lists(st.sampled_from([0.0, 1.0, 7.0]), min_size=1, max_size=4))
    counted = torch.tensor([[True] * len(values) + [False] * len(masked)])
    for baseline in ("mean", "leave_one_out"):
        alone = group_advantages(torch.tensor([values]), baseline=baseline)[0]
        together = group_advantages(torch.tensor([values + masked]), baseline=baseline, counted_BG=counted)[0]
        assert torch.allclose(together[: len(values)], alone, atol=1e-6)
        assert not together[len(values) :].any()


def reference_loss(objective, logprobs, old, reference, advantages, mask, turns, counted):
    """Plain float64 loops over the papers' sums, one token at a time."""
    o, total = objective, 0.0
    lengths = [sum(row) if keep else 0 for row, keep in zip(mask, counted)]
    for n, (lps, olds, refs, advantage, chosen) in enumerate(zip(logprobs, old, reference, advantages, mask)):
        if not counted[n]:
            continue
        places = [c for c, kept in enumerate(chosen) if kept]
        mean_log = sum(lps[c] - olds[c] for c in places) / len(places)
        for c in places:
            ratio = mean_log.exp() if o.surrogate == "gspo" else (lps[c] - olds[c]).exp()
            kept = torch.clamp(ratio, 1 - o.clip_low, 1 + o.clip_high)
            gain = torch.minimum(ratio * advantage, kept * advantage)
            if o.surrogate == "cispo":
                gain = kept.detach() * advantage * lps[c]
            if o.surrogate == "sapo":
                tau = o.tau_pos if advantage > 0 else o.tau_neg
                gain = 4 / tau / (1 + torch.exp(-tau * (ratio - 1))) * advantage
            if o.turn_weights:
                gain = gain * o.turn_weights[min(turns[n][c], len(o.turn_weights) - 1)]
            d = refs[c] - lps[c]
            kl = {"k1": -d, "k2": d * d / 2, "k3": d.exp() - d - 1}[o.kl]
            share = {
                "token": 1 / sum(lengths),
                "sequence": 1 / (sum(counted) * max(1, lengths[n])),
                "constant": 1 / (sum(counted) * o.constant_length),
            }[o.normalisation]
            total = total + share * (o.kl_weight * kl - gain)
    return total


VARIANTS = [
    Objective(),
    Objective(clip_high=0.3),
    Objective(normalisation="sequence"),
    Objective(normalisation="constant", constant_length=7),
    Objective(surrogate="gspo", normalisation="sequence", clip_low=0.05, clip_high=0.1),
    Objective(surrogate="cispo", clip_low=1.0, clip_high=0.3),
    Objective(surrogate="sapo"),
    Objective(surrogate="sapo", tau_pos=2.0, tau_neg=0.5),
    Objective(kl_weight=0.5, kl="k1"),
    Objective(kl_weight=0.5, kl="k2"),
    Objective(kl_weight=0.5, kl="k3"),
    Objective(turn_weights=(0.3, 2.0)),
    Objective(baseline="leave_one_out", scale_advantages=False),
]


@pytest.mark.parametrize("objective", VARIANTS, ids=range(len(VARIANTS)))
def test_loss_and_gradient_equal_the_reference(objective):
    """In float32, within 1e-6 of float64 loops, relative to the gradient's norm."""
    generator = torch.Generator().manual_seed(0)
    shape = (8, 5)
    logprobs = torch.randn(shape, generator=generator) - 2
    old = logprobs + 0.5 * torch.randn(shape, generator=generator)
    reference = logprobs + 0.5 * torch.randn(shape, generator=generator)
    rewards = torch.tensor([[1.0, 0.0, 0.5, 0.0], [0.0, 1.0, 1.0, 0.0]])
    counted = torch.tensor([[True] * 4, [True, True, False, True]])
    mask = torch.rand(shape, generator=generator) < 0.6
    mask[:, 0] = True
    turns = torch.tensor([0, 0, 1, 1, 2]).expand(shape)

    def advantages(rewards_BG):
        return objective.advantages(rewards_BG, counted).flatten()

    plain = logprobs.double().requires_grad_()
    expected = reference_loss(
        objective, plain, old.double(), reference.double(), advantages(rewards.double()), mask.tolist(),
        turns.tolist(), counted.flatten().tolist(),
    )  # fmt: skip
    expected.backward()
    ours = logprobs.clone().requires_grad_()
    losses = objective.losses(ours, old, mask, turns, advantages(rewards))
    losses = losses + objective.kl_weight * objective.penalty(ours, reference)
    loss = weighted_sum(losses, mask, objective.weights(mask.sum(1), counted.flatten()))
    loss.backward()
    assert loss.item() == pytest.approx(expected.item(), rel=1e-5)
    assert (ours.grad.double() - plain.grad).norm() <= 1e-6 * plain.grad.norm()
    assert not ours.grad[~mask].any()


def test_cispo_keeps_the_gradient_of_clipped_tokens():
    logprobs = torch.tensor([[1.0]], requires_grad=True)
    for surrogate, moved in (("ppo", False), ("cispo", True)):
        losses = Objective(surrogate=surrogate).losses(
            logprobs, torch.zeros(1, 1), torch.ones(1, 1, dtype=torch.bool), torch.zeros(1, 1, dtype=torch.long),
            torch.ones(1),
        )  # fmt: skip
        assert bool(torch.autograd.grad(losses.sum(), logprobs)[0].any()) is moved


def test_sapo_is_the_policy_gradient_where_the_policy_has_not_moved_and_fades_on_both_sides():
    """The slope at a ratio of 1 is that of the plain surrogate, whatever the temperature; far off there is none."""

    def slope(log_ratio, advantage, **taus):
        logprob = torch.tensor([[log_ratio]], dtype=torch.float64, requires_grad=True)
        losses = Objective(surrogate="sapo", **taus).losses(
            logprob, torch.zeros(1, 1), torch.ones(1, 1, dtype=torch.bool), torch.zeros(1, 1, dtype=torch.long),
            torch.tensor([advantage], dtype=torch.float64),
        )  # fmt: skip
        return torch.autograd.grad(losses.sum(), logprob)[0].item()

    for taus in ({}, {"tau_pos": 0.3, "tau_neg": 7.0}):
        assert slope(0.0, 1.5, **taus) == pytest.approx(-1.5)
        assert slope(0.0, -0.5, **taus) == pytest.approx(0.5)
    assert abs(slope(4.0, 1.0)) < 1e-6 and abs(slope(-8.0, 1.0)) < 1e-3
    assert abs(slope(0.5, -1.0, tau_neg=4.0)) < abs(slope(0.5, 1.0, tau_pos=1.0))


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("tau_pos", 0.0),
        ("tau_neg", -1.0),
        ("tau_pos", math.inf),
        ("tau_neg", math.nan),
        ("entropy_weight", -0.1),
        ("turn_weights", (1.0, -1.0)),
        ("turn_weights", (math.nan,)),
    ],
)
def test_impossible_temperatures_and_bonuses_are_refused(option, value):
    with pytest.raises(UserError, match=f"objective.*{option}"):
        Objective(**{option: value})


@pytest.mark.parametrize("options", [{"clip_low": -0.1}, {"kl_weight": -1.0}, {"constant_length": 0}])
def test_impossible_objectives_are_refused(options):
    with pytest.raises(ValueError, match="an objective needs"):
        Objective(**options)


@pytest.mark.parametrize("normalisation", ["token", "sequence"])
def test_micro_batches_add_up(normalisation):
    values, mask = torch.randn(6, 4), torch.rand(6, 4) < 0.7
    mask[:, 0] = True
    weights = token_weights(mask.sum(1), normalisation, torch.ones(6, dtype=torch.bool))
    parts = sum(weighted_sum(values[i : i + 2], mask[i : i + 2], weights[i : i + 2]) for i in (0, 2, 4))
    assert torch.allclose(weighted_sum(values, mask, weights), parts)
    assert float(weighted_sum(torch.ones(6, 4), mask, weights)) == pytest.approx(1)


@pytest.mark.parametrize("normalisation", ["token", "sequence", "constant"])
def test_processes_together_weigh_as_one(normalisation):
    """The mean over processes of what each makes of its part is what one makes of all; one part counts nothing."""
    lengths, counted = torch.tensor([3, 1, 5, 2, 4, 7]), torch.tensor([True, True, False, True, False, False])
    rows = [[0, 2, 3], [1], [4, 5]]
    whole = token_weights(lengths, normalisation, counted, 10)
    totals: list[torch.Tensor] = []
    for part in rows:
        token_weights(lengths[part], normalisation, counted[part], 10, lambda total: totals.append(total) or total)
    mean = torch.stack(totals).mean()
    for part in rows:
        weights = token_weights(lengths[part], normalisation, counted[part], 10, lambda _: mean)
        torch.testing.assert_close(weights / 3, whole[part])


@given(st.floats(-300, 300), st.floats(-300, 300))
def test_k3_is_finite_and_not_negative(a, b):
    value = float(kl_k3(torch.tensor([[a]]), torch.tensor([[b]])))
    assert math.isfinite(value)
    assert value >= -1e-6


@pytest.mark.parametrize("estimate", [kl_k1, kl_k3])
def test_k1_and_k3_are_unbiased(estimate):
    p, q = torch.tensor([0.5, 0.3, 0.2]), torch.tensor([0.4, 0.4, 0.2])
    expected = (p * estimate(p.log()[None], q.log()[None])[0]).sum()
    assert float(expected) == pytest.approx(float((p * (p / q).log()).sum()), abs=1e-6)


def test_k2_has_the_gradient_of_the_divergence():
    logits, q = torch.tensor([0.3, -0.2, 0.1], requires_grad=True), torch.tensor([0.4, 0.4, 0.2])
    logp = logits.log_softmax(0)
    right = torch.autograd.grad((logp.exp() * (logp - q.log())).sum(), logits, retain_graph=True)[0]
    ours = torch.autograd.grad((logp.exp().detach() * kl_k2(logp[None], q.log()[None])[0]).sum(), logits)[0]
    assert torch.allclose(ours, right, atol=1e-6)


@given(st.floats(-1000, 1000))
def test_ratios_stay_finite(gap):
    logprobs = torch.tensor([[gap]], requires_grad=True)
    loss = ppo_loss(logprobs, torch.zeros(1, 1), torch.tensor([-1.0]), 0.2, 0.2)
    loss.sum().backward()
    assert torch.isfinite(loss).all()
    assert torch.isfinite(logprobs.grad).all()


def test_under_gspo_what_is_clipped_goes_by_the_sequence_ratio():
    """Token ratios far from one whose geometric mean is one: nothing is clipped."""
    logprobs, mask = torch.tensor([[1.0, -1.0]]), torch.ones(1, 2, dtype=torch.bool)
    for surrogate, clipped in (("ppo", True), ("gspo", False)):
        assert (Objective(surrogate=surrogate).clipped(logprobs, torch.zeros(1, 2), mask) == clipped).all()


@pytest.mark.parametrize("d", [-12.0, -10.0, 0.0, 2.5, 2.7])
@pytest.mark.parametrize("kl", ["k2", "k3"])
def test_a_token_is_clamped_where_the_penalty_has_no_gradient(kl, d):
    logprobs = torch.zeros(1, 1, requires_grad=True)
    reference = torch.full((1, 1), d)
    objective = Objective(kl=kl)
    (gradient,) = torch.autograd.grad(objective.penalty(logprobs, reference).sum(), logprobs)
    assert objective.clamped(logprobs, reference).item() == (gradient.item() == 0 and d != 0)
