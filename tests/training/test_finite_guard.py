"""Numbers that are not finite: the weights never see them, the person does, and the run ends in bounded time."""

import math
from itertools import count

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mgpo.errors import UserError
from mgpo.objective import Objective, group_advantages, weighted_sum
from mgpo.rollout.in_process import Sampling, choose
from mgpo.training.finite_guard import PATIENCE
from mgpo.training.module import MGPO
from tests.training.test_module import Noisy, equal, fit, make, watch, weights

GAPS = st.one_of(st.floats(-1e4, 1e4, width=32), st.sampled_from([1e4, -1e4, 0.0, 20.0, -20.0]))
VARIANTS = [
    Objective(surrogate=surrogate, normalisation=normalisation, kl_weight=1.0, kl=kl)
    for surrogate, normalisation in (("ppo", "token"), ("gspo", "sequence"), ("cispo", "constant"), ("sapo", "token"))
    for kl in ("k1", "k2", "k3")
]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("objective", VARIANTS, ids=lambda o: f"{o.surrogate}-{o.kl}")
@settings(max_examples=40)
@given(st.lists(GAPS, min_size=6, max_size=6), st.lists(GAPS, min_size=6, max_size=6), st.floats(-1e3, 1e3))
def test_losses_and_gradients_are_finite_at_any_distance(objective, dtype, to_old, to_reference, advantage):
    logprobs_NC = torch.tensor([[-1e-6, -1.0, -1e4], [0.0, -20.0, -100.0]], dtype=dtype, requires_grad=True)
    old_NC = logprobs_NC.detach() - torch.tensor(to_old, dtype=dtype).view(2, 3)
    reference_NC = logprobs_NC.detach() - torch.tensor(to_reference, dtype=dtype).view(2, 3)
    mask_NC = torch.tensor([[True, True, True], [True, False, True]])
    advantages_N = torch.tensor([advantage, -advantage], dtype=dtype)
    losses_NC = objective.losses(logprobs_NC, old_NC, mask_NC, torch.zeros(2, 3, dtype=torch.long), advantages_N)
    losses_NC = losses_NC + objective.kl_weight * objective.penalty(logprobs_NC, reference_NC)
    loss = weighted_sum(losses_NC, mask_NC, objective.weights(mask_NC.sum(1), torch.ones(2, dtype=torch.bool)))
    loss.backward()
    assert loss.isfinite() and logprobs_NC.grad.isfinite().all()


class Poisoned(Noisy):
    """The loss of one question is not finite, or its gradient, or the reward of one of its rollouts."""

    kind, question, times = "loss", "", math.inf

    def roll_out(self, samples, step, copies=None):
        trajectories = super().roll_out(samples, step, copies)
        for i, trajectory in enumerate(trajectories):
            trajectory.reward = float(i % 2)
        self.question = self.question or trajectories[0].question.id
        self.bad = self.kind != "none" and self.times > 0 and trajectories[0].question.id in (self.question, "all")
        self.times -= self.bad
        if self.bad and self.kind == "reward":
            trajectories[1].reward = math.nan
        return trajectories

    def loss(self, batch, *rest):
        loss, metrics = super().loss(batch, *rest)
        if self.bad and self.kind == "loss":
            loss = loss * math.inf
        if self.bad and self.kind == "gradient":
            loss = loss + 0 * (self.policy.model.lm_head.weight[0, 0] * 0).sqrt()  # 0 times an infinite slope
        return loss, metrics


@pytest.mark.parametrize("kind", ["loss", "gradient", "reward"])
def test_an_update_that_is_not_finite_is_left_out_and_shown(tokenizer, tmp_path, kind):
    module = make(tokenizer, Poisoned)
    module.kind = kind
    said, seen = [], []
    module.print = said.append
    steps = watch(module)
    learn = module.training_step
    module.training_step = lambda *batch: (seen.append(weights(module)), learn(*batch), seen.append(weights(module)))[1]
    trainer = fit(module, tmp_path, enable_checkpointing=False)
    assert trainer.global_step == 3
    assert [step["skipped_updates"] for step in steps] == [1, 0, 0, 0]
    assert equal(seen[0], seen[1]) and not equal(seen[1], seen[-1])
    assert all(value.isfinite().all() for value in seen[-1].values())
    assert len(said) == 1 and "\n" not in said[0]
    assert said[0].startswith(f"update left out, 1 in a row: question {module.question} has a")
    assert ("reward of nan" in said[0]) == (kind == "reward")
    assert said[0].count(" | ") == 2  # the question's text, and two replies


def test_a_policy_that_yields_nan_ends_the_run_with_a_sentence(tokenizer, tmp_path):
    numbers = count()
    module = make(tokenizer, MGPO, reward=lambda answer, question: float(next(numbers) % 2))
    with torch.no_grad():
        module.policy.model.lm_head.weight.fill_(math.nan)
    said = []
    module.print = said.append
    with pytest.raises(UserError, match=r"5 updates in a row .* lower the learning rate.* question attribute-"):
        fit(module, tmp_path, questions=16, enable_checkpointing=False)
    assert len(said) == PATIENCE
    assert module.trainer.global_step == 0


def test_a_good_update_in_between_starts_the_count_again(tokenizer, tmp_path):
    module = make(tokenizer, Poisoned, mini_batches=1)
    module.kind, module.question = "loss", "all"
    module.roll_out = lambda *args, **options: _every_other(module, Poisoned.roll_out(module, *args, **options))
    module.print = lambda line: None
    trainer = fit(module, tmp_path, questions=2 * 2 * (PATIENCE + 1), enable_checkpointing=False)
    assert trainer.global_step == PATIENCE + 1


def _every_other(module, trajectories):
    module.turn = not getattr(module, "turn", False)
    module.bad = module.turn
    return trajectories


def test_a_reward_that_is_no_number_does_not_pass_for_silence():
    rewards_BG = torch.tensor([[math.nan, 1.0], [math.nan, 1.0], [1.0, 1.0]])
    counted_BG = torch.tensor([[True, True], [False, True], [True, True]])
    advantages_BG = group_advantages(rewards_BG, counted_BG=counted_BG)
    assert advantages_BG.isnan().any(1).tolist() == [True, False, False]


def test_logits_that_are_no_numbers_give_an_id_and_a_log_prob_that_says_so():
    logits_NV = torch.tensor([[math.nan] * 4, [0.0, 0.0, 50.0, 0.0]])
    id_N, logprob_N = choose(logits_NV, torch.tensor([0.9, 0.5]), Sampling())
    assert id_N.tolist() == [0, 2]
    assert logprob_N.isnan().tolist() == [True, False]
