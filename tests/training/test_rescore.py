"""Rollouts whose log-probs are not the trainer's: they are scored again, and weighed for the gap."""

import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mgpo.dialogues import SingleTurn, TwoTurn
from mgpo.objective import Objective, truncated_ratio
from mgpo.policy.passes.batch import collate
from mgpo.policy.passes.logprobs import score
from mgpo.rollout.episodes import roll_out
from mgpo.rollout.in_process import InProcessSampler, Sampling
from mgpo.training import loss
from mgpo.training.loss import policy_loss, rescore
from tests.conftest import make_question, noise_image
from tests.training.test_module import fit, make, watch, weights

logs = st.floats(-30, 0)


@given(logs, logs, st.floats(1, 10))
def test_the_weight_is_the_truncated_ratio(old, sampled, cap):
    ours = truncated_ratio(torch.tensor([[old]]), torch.tensor([[sampled]]), cap)
    assert float(ours) == pytest.approx(min(math.exp(old - sampled), cap), rel=1e-4, abs=1e-8)


@given(logs, st.floats(1, 10))
def test_exact_log_probs_weigh_one(logprob, cap):
    exact = torch.tensor([[logprob]])
    assert Objective(correction_cap=cap).correction(exact, exact).item() == 1
    assert Objective(correction_cap=None).correction(exact, exact - 3).item() == 1


def test_the_weight_has_no_gradient():
    old = torch.zeros(1, 1, requires_grad=True)
    assert not truncated_ratio(old, torch.ones(1, 1), 2.0).requires_grad


def test_a_cap_under_one_is_refused():
    with pytest.raises(ValueError, match="correction_cap is"):
        Objective(correction_cap=0.5)


class Skewed(InProcessSampler):
    """Claims other log-probs than those of the tokens it drew, as an engine that computes otherwise would."""

    exact = False

    def __init__(self, gap: float) -> None:
        self.gap = gap

    def open(self, policy, prompts, copies):
        conversation = super().open(policy, prompts, copies)
        sample = conversation.reply

        def reply(*asked):
            for row, r in sample(*asked):
                yield row, replace(r, logprobs=tuple(p - self.gap for p in r.logprobs))

        conversation.reply = reply
        return conversation


def play(policy, sampler, dialogue=TwoTurn(), temperature=1.0):
    images = [noise_image(448, 448, 1), noise_image(640, 320, 2)]
    samples = [(make_question(image, f"q{i}"), image) for i, image in enumerate(images)]
    return roll_out(policy, sampler, dialogue, samples, 3, Sampling(8, temperature), (0, 0))


@pytest.mark.parametrize("temperature", [0.5, 2.0])
def test_rescoring_is_under_the_temperature_of_the_draws(policy, temperature):
    skewed = play(policy, Skewed(0.0), temperature=temperature)
    metrics = rescore(policy, skewed, [range(6)], Objective(), temperature)
    assert metrics.largest["engine_gap_max"] < 1e-3
    for turn in (turn for t in skewed for turn in t.turns):
        assert turn.scored == pytest.approx(turn.reply.logprobs, abs=1e-4)


def test_rescoring_finds_the_trainers_log_probs_and_the_gap(policy):
    exact, skewed = play(policy, InProcessSampler()), play(policy, Skewed(1.0))
    metrics = rescore(policy, skewed, [[0, 1, 2, 3], [4, 5]], Objective(correction_cap=2.0), 1.0)
    tokens = sum(t.learnt_tokens for t in skewed)
    assert metrics.sums["engine_gap"] == pytest.approx((tokens, tokens), abs=1e-2)
    assert metrics.largest["engine_gap_max"] == pytest.approx(1, abs=1e-3)
    assert metrics.sums["engine_truncated"] == (tokens, tokens)
    for ours, theirs in zip(skewed, exact):
        for turn, other in zip(ours.turns, theirs.turns):
            assert turn.scored == pytest.approx(other.reply.logprobs, abs=1e-4)
    assert rescore(policy, skewed, [range(6)], Objective(correction_cap=3.0), 1.0).sums["engine_truncated"][0] == 0


@pytest.mark.parametrize(("gap", "weight"), [(-0.5, math.exp(-0.5)), (0.5, math.exp(0.5)), (3.0, 2.0)])
def test_the_gradient_is_that_of_exact_rollouts_times_the_weight(policy, gap, weight):
    """What the updates change is measured from the trainer's own log-probs, so nothing is clipped at the start."""
    objective = Objective(correction_cap=2.0)
    advantages, weights = torch.tensor([1.0, -1.0, 0.5] * 2), torch.full((6,), 0.01)
    losses = []
    for sampler in (InProcessSampler(), Skewed(gap)):
        trajectories = play(policy, sampler, SingleTurn())
        if not sampler.exact:
            rescore(policy, trajectories, [range(6)], objective, 1.0)
        batch = collate(trajectories, policy.positions, policy.pad_id)
        loss, metrics = policy_loss(policy, batch, advantages, weights, objective, 1.0)
        assert metrics.sums["clip_fraction"][0] == 0
        losses.append(loss.item())
    assert losses[1] == pytest.approx(losses[0] * weight, rel=1e-3)
    with torch.no_grad():
        assert torch.allclose(batch.old_logprobs_NC, score(policy, batch).logprobs_NC, atol=1e-4)


@pytest.mark.parametrize("mini_batches", [1, 2])
def test_a_run_with_an_inexact_sampler_logs_how_inexact(tokenizer, tmp_path, mini_batches):
    module = make(tokenizer, sampler=Skewed(0.25), mini_batches=mini_batches)
    steps = watch(module)
    fit(module, tmp_path, enable_checkpointing=False)
    learnt = [step for step in steps if mini_batches > 1 or step["constant_reward"] < 1]  # others have no pass
    for name, value in (("engine_gap", 0.25), ("engine_gap_max", 0.25), ("engine_truncated", 0)):
        assert learnt and [step[name] for step in learnt] == pytest.approx([value] * len(learnt), abs=1e-3)
    assert "engine_gap" not in watched_exact(tokenizer, tmp_path)


def test_the_only_update_of_a_step_needs_no_pass_to_begin_with(tokenizer, tmp_path, monkeypatch):
    """It learns what it would learn from log-probs that were scored before, with the same weights for the gap."""
    passes, ends = [], []
    score_first = loss.score_replies
    monkeypatch.setattr(loss, "score_replies", lambda *x: passes.append(1) or score_first(*x))
    for begins in (True, False):
        module = make(tokenizer, sampler=Skewed(0.4), objective=Objective(correction_cap=1.2, kl_weight=0.01))
        if not begins:
            monkeypatch.setattr(type(module), "begins", False)
        steps = watch(module)
        fit(module, tmp_path, enable_checkpointing=False)
        ends.append((weights(module), [(step["loss"], step["grad_norm"]) for step in steps]))
        assert bool(passes) != begins
    assert ends[0][1] == [pytest.approx(step, rel=1e-3, abs=1e-6) for step in ends[1][1]]
    assert all(torch.allclose(ours, ends[1][0][name], atol=1e-5) for name, ours in ends[0][0].items())


def watched_exact(tokenizer, tmp_path):
    module = make(tokenizer)
    steps = watch(module)
    fit(module, tmp_path, questions=2, enable_checkpointing=False)
    return steps[0]


def test_a_batch_may_move_again(policy):
    batch = collate(play(policy, InProcessSampler()), policy.positions, policy.pad_id)
    there = batch.to(torch.device("cpu")).to(torch.device("cpu"))
    assert torch.equal(there.packing.asked_M, batch.packing.asked_M) and there.packing.rows == batch.packing.rows
    assert torch.equal(there.fed_NC, batch.fed_NC)
