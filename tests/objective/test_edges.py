"""Where there is nothing to divide by, and where numbers are none."""

import math

import pytest
import torch

from mgpo.objective import (
    Objective,
    group_advantages,
    has_signal,
    sequence_ratio,
    token_weights,
    weighted_sum,
)  # fmt: skip

BASELINES = ["mean", "leave_one_out"]


@pytest.mark.parametrize("baseline", BASELINES)
@pytest.mark.parametrize("counted", [[True, False, False], [False, False, False]], ids=["one", "none"])
def test_a_group_of_one_or_none_that_counts_has_advantages_of_zero(baseline, counted):
    found = group_advantages(torch.tensor([[1.0, 0.0, 3.0]]), baseline=baseline, counted_BG=torch.tensor([counted]))
    assert found.tolist() == [[0.0, 0.0, 0.0]]


def test_eps_is_added_to_the_deviation():
    assert group_advantages(torch.tensor([[1.0, 0.0]]), eps=0.5).tolist() == [[0.5, -0.5]]


def test_a_reward_that_is_no_number_differs_from_all():
    rewards = torch.tensor([[1.0, math.nan, 1.0], [1.0, 1.0, 1.0]])
    assert has_signal(rewards, torch.ones(2, 3, dtype=torch.bool)).tolist() == [True, False]


def test_a_trajectory_without_a_token_has_a_ratio_of_one():
    logprobs = torch.tensor([[-1.0, -2.0], [-3.0, -1.0], [-2.0, -1.0]], requires_grad=True)
    mask = torch.tensor([[False, False], [True, True], [True, False]])
    ratio = sequence_ratio(logprobs, logprobs.detach() - 0.5, mask)
    assert ratio[0].item() == 1 and ratio[1:, 0].tolist() == pytest.approx([math.exp(0.5)] * 2)
    ratio.sum().backward()
    assert logprobs.grad[0].tolist() == [0.0, 0.0] and logprobs.grad.isfinite().all()


@pytest.mark.parametrize("normalisation", ["token", "sequence", "constant"])
def test_trajectories_without_tokens_and_mini_batches_without_trajectories_weigh_something_finite(normalisation):
    empty = token_weights(torch.tensor([0, 0]), normalisation, torch.tensor([True, True]), 8)
    assert empty.isfinite().all()
    assert token_weights(torch.tensor([3, 2]), normalisation, torch.tensor([False, False]), 8).tolist() == [0.0, 0.0]


def test_what_stands_outside_the_mask_is_left_out_even_where_it_is_no_number():
    values = torch.tensor([[1.0, math.inf], [math.nan, 2.0]], requires_grad=True)
    mask = torch.tensor([[True, False], [False, True]])
    total = weighted_sum(values, mask, torch.tensor([0.5, 0.25]))
    total.backward()
    assert total.item() == 1.0 and values.grad.tolist() == [[0.5, 0.0], [0.0, 0.25]]


@pytest.mark.parametrize("surrogate", ["ppo", "gspo", "cispo", "sapo"])
def test_losses_are_of_every_token_also_where_a_trajectory_has_one_advantage(surrogate):
    logprobs = torch.full((2, 3), -1.0)
    mask = torch.ones(2, 3, dtype=torch.bool)
    found = Objective(surrogate).losses(logprobs, logprobs, mask, mask.long(), torch.tensor([1.0, -1.0]))
    assert found.shape == (2, 3)
    assert Objective(surrogate).clipped(logprobs, logprobs, mask).shape == (2, 3)
