"""Credit by turn: a look is learnt with what its crop is worth, an answer with its reward."""

import copy
from functools import cache

import pytest
import torch

from mgpo.data import Scenes
from mgpo.objective import Objective
from mgpo.policy import Qwen25VL
from mgpo.policy.passes.batch import collate
from mgpo.rollout.in_process import InProcessSampler, Sampling
from mgpo.training.credit import token_advantages
from mgpo.training.groups import DynamicSamplingPool, Groups, MiniBatch
from mgpo.training.module import MGPO
from mgpo.types import Prompt, Reply, Trajectory, Turn
from mgpo.world.model import CAPS
from tests.conftest import make_question, noise_image
from tests.training.test_going_on import SaveAlways
from tests.training.test_module import adam, equal, fit, watch, weights
from tests.training.test_rescore import Skewed

IMAGE = noise_image(56, 56)
LENGTHS = (3, 2)  # of a look and an answer


def rollout(reward, evidence, failed=None):
    replies = [Reply(tuple(range(length)), (-1.0,) * length, "end") for length in LENGTHS]
    turns = [Turn(Prompt((7, 8)), reply, "") for reply in replies]
    turns[0].evidence = evidence
    return Trajectory(make_question(IMAGE), IMAGE, turns, reward=reward, failed=failed)


def groups(*rollouts, size=4):
    return Groups.of([rollout(*of) for of in rollouts], size)


def test_a_look_is_learnt_with_its_evidence_beside_the_reward_and_the_answer_with_the_reward_alone():
    """The second looked well and answered wrongly; the third looked at nothing and was lucky."""
    some = groups((1.0, 3.0), (0.0, 3.0), (1.0, 0.0), (0.0, 0.0))
    looks = torch.stack([values[:3] for values in token_advantages(some, Objective())])
    answers = torch.stack([values[3:] for values in token_advantages(some, Objective())])
    evidence = looks - answers[:, :1]
    assert (evidence[:2] > 0.5).all() and (evidence[2:] < -0.5).all()
    assert (answers[[0, 2]] > 0.5).all() and (answers[[1, 3]] < -0.5).all()


def test_what_a_look_was_worth_by_hand():
    """Grades of 1/2 and 0 within a cap of 8 nats: 0.25 from their mean, over a deviation of 0.25 and the floor."""
    (first, _), expected = token_advantages(groups((1.0, 4.0), (1.0, 0.0), size=2), Objective()), 0.25 / (0.25 + 0.04)
    assert first.tolist() == pytest.approx([expected] * 3 + [0.0] * 2)


def test_turns_that_are_not_learnt_have_no_advantages():
    some = groups((1.0, 4.0), (0.0, 0.0), size=2)
    for trajectory in some.trajectories:
        trajectory.turns[0].learnt = False
    assert [len(values) for values in token_advantages(some, Objective())] == [LENGTHS[1]] * 2


def test_without_evidence_every_token_has_the_answers_advantage():
    some = groups((1.0, None), (0.0, None), (0.0, None), (0.0, None))
    expected = Objective().advantages(some.rewards_BG, some.counted_BG).flatten()
    for values, advantage in zip(token_advantages(some, Objective()), expected):
        assert values.tolist() == [advantage] * sum(LENGTHS)


def test_rollouts_that_do_not_count_stay_out_of_both_statistics():
    failed = (9.0, None, "its file is gone")
    some = groups((1.0, 3.0), (0.0, 0.0), failed, size=3)
    alone = groups((1.0, 3.0), (0.0, 0.0), size=2)
    *counted, left_out = token_advantages(some, Objective())
    torch.testing.assert_close(counted, token_advantages(alone, Objective()))
    assert len(left_out) == sum(LENGTHS) and not left_out.any()


def test_a_group_has_a_signal_if_rewards_or_looks_differ():
    some = groups(
        (1.0, 3.0), (1.0, 0.0),
        (1.0, 2.0), (0.0, 2.0),
        (1.0, 2.9), (1.0, 3.0),
        (0.0, 0.0), (0.0, -5.0),
        size=2,
    )  # fmt: skip
    assert some.signal_B.tolist() == [True, True, False, False]
    pool = DynamicSamplingPool(batches=4)
    assert not pool.add(some.select([2, 3]), wanted=2) and pool.add(some.select([0, 1]), wanted=2)
    assert pool.take(2).signal_B.all()


def test_advantages_stand_where_their_tokens_do(policy):
    some = groups((1.0, 3.0), (0.0, 3.0), (1.0, 0.0), (0.0, 0.0))
    batch = collate([*some.trajectories], policy.positions, policy.pad_id)
    part = MiniBatch(some.trajectories, token_advantages(some, Objective()), torch.ones(4))
    advantages_NC = part.advantages_NC(batch.policy_NC)
    for n, values in enumerate(part.advantages):
        for k, turn in enumerate(values.split(LENGTHS)):
            assert advantages_NC[n][batch.policy_NC[n] & (batch.turn_NC[n] == k)].tolist() == turn.tolist()
    assert not advantages_NC[~batch.policy_NC].any()


@cache
def base():
    return Qwen25VL(**CAPS).load()


def make(**options):
    options = {"group_size": 4, "sampling": Sampling(max_new_tokens=32), "optimizer": adam, **options}
    return MGPO(copy.deepcopy(base()).train(), credit="turn", **options)


def wrong(answer, question):
    return 0.0


def test_looks_are_learnt_where_every_answer_is_wrong(tmp_path):
    """And answers are not: no reward says which of them was better."""
    module = make(reward=wrong)
    parts, steps = [], watch(module)
    module.loss = lambda part: parts.append(part) or MGPO.loss(module, part)
    before = weights(module)
    fit(module, tmp_path, side=640, enable_checkpointing=False)
    assert not equal(before, weights(module))
    assert parts and all(values[-1] == 0 for part in parts for values in part.advantages)
    assert any(step.get("evidence_margin", 0) > 0 for step in steps)
    assert any(step["constant_reward"] < 1 for step in steps)
    assert module.timer.phases["evidence"].seconds > 0


def test_evidence_is_the_trainers_whoever_samples():
    """Those of a sampler that claims other log-probs are the same as in process; it is asked to make room before."""
    questions = Scenes(4, side=640)
    samples = [(question, question.picture.load()) for question in (questions[i] for i in range(4))]
    margins, released = [], []
    for sampler in (InProcessSampler(), Skewed(1.0)):
        module = make(sampler=sampler)
        sampler.release = lambda: released.append(True)
        some = Groups.of(module.roll_out(samples, 0, copies=3), 3)
        module.measure_looks(some)
        margins.append([turn.evidence for t in some.trajectories for turn in t.turns])
        assert not module.timer.phases["rollout"].seconds and len(released) == len(margins)
    ours, theirs = margins
    assert ours == pytest.approx(theirs, abs=1e-4) and ours[1::2] == [None] * 12
    assert any(ours[::2])


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_a_resumed_run_that_waits_for_groups_equals_an_uninterrupted_one(tmp_path, precision):
    """Their looks are measured again, by the weights and in the precision that made them, and shown once."""

    def run(**options):
        module = make(constant_reward_groups="resample", resample_batches=3, reward=wrong)
        module.lines, steps = [], watch(module)
        fit(module, tmp_path, questions=6, precision=precision, **options)
        return weights(module), [step.get("evidence_margin") for step in steps]

    saver = SaveAlways(tmp_path)
    whole, margins = run(callbacks=[saver])
    (path,) = [path for path in saver.at if torch.load(path, weights_only=True)["waiting"] == 2]
    again, later = run(ckpt_path=path, enable_checkpointing=False)
    assert equal(whole, again) and len(margins) == 3
    assert later == pytest.approx(margins[2:], abs=1e-6)
