"""The evidence margin: what it says of a policy that looks, of one that does not, and where nothing was cut out."""

from dataclasses import replace
from functools import partial

import pytest
import torch

from mgpo.data import Scenes
from mgpo.dialogues import TwoTurn
from mgpo.evaluation.counterfactuals import SWAPS
from mgpo.evaluation.evidence import look_margins
from mgpo.policy import Qwen25VL
from mgpo.policy.passes.batch import collate
from mgpo.policy.passes.logprobs import score
from mgpo.rollout.episodes import ANSWER_FORM, force_answers, roll_out
from mgpo.rollout.in_process import InProcessSampler, Sampling
from mgpo.world.model import CAPS
from mgpo.world.questions import KINDS


@pytest.fixture(scope="module")
def base():
    return Qwen25VL(**CAPS).load().eval()


@pytest.fixture(scope="module")
def samples():
    questions = Scenes(8, KINDS, "val", side=640)
    return [(question, question.picture.load()) for question in (questions[i] for i in range(8))]


@pytest.fixture(scope="module")
def play(base, samples):
    sampling = Sampling(max_new_tokens=32)
    return partial(roll_out, base, InProcessSampler(), TwoTurn(), samples, 2, sampling, (0, 0))


def evidence_margins(policy, trajectories, *, micro_batch_tokens=16384):
    """What all looks of each trajectory add."""
    return torch.tensor([sum(of) for of in look_margins(policy, trajectories, ANSWER_FORM, micro_batch_tokens)])


def likelihoods(policy, trajectories):
    """Of the right answers, one trajectory a pass."""
    copies = [replace(t, turns=[replace(turn) for turn in t.turns]) for t in trajectories]
    force_answers(policy, copies, ANSWER_FORM)
    batches = [collate([copy], policy.positions, policy.pad_id) for copy in copies]
    with torch.no_grad():
        return torch.stack([score(policy, batch).logprobs_NC.sum() for batch in batches])


def test_it_is_what_a_rollout_with_black_crops_loses(base, play):
    seen, unseen = play(), play(swap=SWAPS["black"])
    expected = likelihoods(base, seen) - likelihoods(base, unseen)
    torch.testing.assert_close(evidence_margins(base, seen), expected, atol=1e-3, rtol=1e-4)
    cut = torch.tensor([bool(t.crops) for t in seen])
    assert cut.any() and not cut.all()
    assert (expected[cut] > 1).any()


def test_it_is_exactly_zero_where_nothing_was_cut_out(base, play):
    trajectories = play()
    margins = evidence_margins(base, trajectories, micro_batch_tokens=400)
    assert all(margin == 0 for margin, t in zip(margins, trajectories) if not t.crops)


def test_it_is_zero_for_a_policy_that_is_blind_to_its_crops(base, play, monkeypatch):
    trajectories = play()
    features = base.features
    monkeypatch.setattr(base, "features", lambda images: torch.zeros_like(features(images)))
    margins = evidence_margins(base, trajectories)
    torch.testing.assert_close(margins, torch.zeros(len(trajectories)), atol=1e-4, rtol=0)


def test_rollouts_and_the_mode_of_the_policy_stay_as_they_are(base, play):
    trajectories = play()
    before = [(t.turns[-1].reply, t.turns[-1].text, [turn.learnt for turn in t.turns]) for t in trajectories]
    base.train()
    evidence_margins(base, trajectories)
    assert base.training
    base.eval()
    assert before == [(t.turns[-1].reply, t.turns[-1].text, [turn.learnt for turn in t.turns]) for t in trajectories]
