"""Advantages of single tokens, as credit by turn and a teacher give them, under every surrogate."""

import pytest
import torch

from mgpo.objective import Objective, evidence_grades, group_advantages
from mgpo.training.credit import FLOOR

OBJECTIVES = [
    Objective(clip_high=0.3),
    Objective(surrogate="gspo", clip_low=0.05, clip_high=0.1),
    Objective(surrogate="cispo", clip_low=1.0),
    Objective(surrogate="sapo", tau_pos=2.0, tau_neg=0.5),
    Objective(turn_weights=(0.5, 2.0)),
]


@pytest.fixture
def tokens():
    generator = torch.Generator().manual_seed(0)
    logprobs, old, advantages = torch.randn(3, 6, 7, generator=generator, dtype=torch.float64)
    mask = torch.rand(6, 7, generator=generator) < 0.7
    return logprobs.requires_grad_(), logprobs.detach() + 0.3 * old, mask, advantages, torch.arange(7).expand(6, 7) // 3


def one_by_one(objective, logprobs, old, mask, advantages, turns):
    """The surrogate of each token in float64, from its own advantage alone."""
    rows = []
    for n in range(len(logprobs)):
        logs = (logprobs[n] - old[n])[mask[n]]
        for c in mask[n].nonzero().flatten():
            advantage, ratio = advantages[n, c], (logprobs[n, c] - old[n, c]).exp()
            if objective.surrogate == "gspo":
                ratio = logs.mean().exp()
            kept = ratio.clamp(1 - objective.clip_low, 1 + objective.clip_high)
            gain = torch.minimum(ratio * advantage, kept * advantage)
            if objective.surrogate == "cispo":
                gain = kept.detach() * advantage * logprobs[n, c]
            if objective.surrogate == "sapo":
                tau = objective.tau_pos if advantage > 0 else objective.tau_neg
                gain = 4 / tau * torch.sigmoid(tau * (ratio - 1)) * advantage
            rows.append(-gain * (objective.turn_weights[min(turns[n, c], 1)] if objective.turn_weights else 1))
    return torch.stack(rows)


@pytest.mark.parametrize("objective", OBJECTIVES, ids=lambda o: f"{o.surrogate}{len(o.turn_weights)}")
def test_every_token_is_learnt_with_its_own_advantage(objective, tokens):
    logprobs, old, mask, advantages, turns = tokens
    ours = objective.losses(logprobs, old, mask, turns, advantages)[mask]
    expected = one_by_one(objective, logprobs, old, mask, advantages, turns)
    torch.testing.assert_close(ours, expected)
    gradients = [torch.autograd.grad(losses.sum(), logprobs, retain_graph=True)[0] for losses in (ours, expected)]
    torch.testing.assert_close(*gradients)


@pytest.mark.parametrize("objective", OBJECTIVES, ids=lambda o: f"{o.surrogate}{len(o.turn_weights)}")
def test_one_for_a_whole_trajectory_is_the_same_for_all_its_tokens(objective, tokens):
    logprobs, old, mask, advantages, turns = tokens
    whole = objective.losses(logprobs, old, mask, turns, advantages[:, 0])
    torch.testing.assert_close(
        objective.losses(logprobs, old, mask, turns, advantages[:, :1].expand(-1, 7)), whole, rtol=0, atol=0
    )


def test_evidence_becomes_a_reward_between_nothing_and_all_there_is_to_see():
    margins = torch.tensor([[-4.0, 0.0, 1.5, 9.0]])
    everybody = torch.ones(1, 4, dtype=torch.bool)
    assert evidence_grades(margins, everybody, cap=3.0).tolist() == [[0.0, 0.0, 0.5, 1.0]]


def test_equally_good_looks_differ_in_nothing():
    """What standard deviations would blow up to unit advantages: likelihoods that differ by hundredths of nats."""
    margins = torch.tensor([[2.7, 2.71, 2.69, 2.7], [0.0, 0.05, 0.0, -3.0], [0.0, 0.0, 2.0, 0.0]])
    counted = torch.ones(3, 4, dtype=torch.bool)
    advantages = group_advantages(evidence_grades(margins, counted), eps=FLOOR)
    assert not advantages[:2].any()
    assert advantages[2].argmax() == 2 and advantages[2, 2] > 1


def test_a_rollout_that_does_not_count_makes_no_difference_between_the_others():
    margins, counted = torch.tensor([[2.0, 2.0, 0.0]]), torch.tensor([[True, True, False]])
    assert not evidence_grades(margins, counted)[counted].any()
