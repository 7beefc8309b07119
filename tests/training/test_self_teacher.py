"""A copy that looks teaches the policy that glances: what its advantages are the gradient of, and how it moves."""

import copy
from dataclasses import replace
from functools import cache

import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint

from mgpo.checkpoints.whole import load_state
from mgpo.data import Scenes
from mgpo.dialogues import SingleTurn, TwoTurn, answer_only
from mgpo.errors import UserError
from mgpo.images.views import View
from mgpo.objective import Objective, weighted_sum
from mgpo.policy import Qwen25VL
from mgpo.policy.lora import Lora
from mgpo.policy.passes.batch import collate
from mgpo.policy.passes.logprobs import score
from mgpo.rollout.episodes import roll_out
from mgpo.rollout.in_process import InProcessSampler, Sampling
from mgpo.training import self_teacher
from mgpo.training.loop_settings import check_strategy
from mgpo.training.module import MGPO
from mgpo.training.self_teacher import SelfTeacher
from mgpo.types import Message, Prompt, Reply, Trajectory, Turn
from mgpo.world.model import CAPS
from tests.conftest import make_policy, make_question, noise_image
from tests.training.test_module import adam, equal, fit, watch, weights
from tests.training.test_rescore import Skewed

IMAGE = noise_image(56, 56)
SAMPLING = Sampling(max_new_tokens=32)


@cache
def base():
    return Qwen25VL(**CAPS).load()


def make(**options):
    options = {"group_size": 4, "sampling": SAMPLING, "optimizer": adam, "teacher": SelfTeacher(decay=0.9), **options}
    return MGPO(copy.deepcopy(base()).train(), **options)


@pytest.mark.parametrize("clip", [100.0, 0.5])
def test_its_advantages_make_the_gradient_of_the_reverse_divergence(monkeypatch, clip):
    """Every reply of one token, weighed by how often it is sampled; against Σ π (log π - log π_T) in float64."""
    logits = torch.tensor([0.4, -1.0, 0.1, 2.0, -0.3], dtype=torch.float64, requires_grad=True)
    target = torch.tensor([-0.2, 1.5, 0.0, 0.3, -2.0], dtype=torch.float64).log_softmax(0)
    logp = logits.log_softmax(0)
    replies = [Reply((v,), (logp[v].item(),), "end") for v in range(5)]
    rollouts = [Trajectory(make_question(IMAGE), IMAGE, [Turn(Prompt((7,)), reply, "")]) for reply in replies]
    look = replace(
        rollouts[0],
        turns=[Turn(Prompt((7,)), replies[0], "") for _ in range(2)],
        views=[View((0, 0, 8, 8), (8, 8)), View((0, 0, 4, 4), (8, 8))],
    )
    monkeypatch.setattr(self_teacher, "roll_out", lambda *args: [look])
    said = lambda policy, judged, *rest: [target[list(t.turns[-1].reply.ids)].float() for t in judged]  # noqa: E731
    monkeypatch.setattr(self_teacher, "score_replies", said)
    teacher = SelfTeacher(clip=clip)
    teacher.policy = object()
    advantages, gaps = teacher.advantages(rollouts, 5, SAMPLING, (0, 0), 1000)

    logprobs, mask = logp[:, None], torch.ones(5, 1, dtype=torch.bool)
    losses = Objective().losses(logprobs, logprobs.detach(), mask, mask.long(), torch.stack(advantages).double())
    ours = torch.autograd.grad(weighted_sum(losses, mask, logp.detach().exp()), logits, retain_graph=True)[0]
    gap = logp - target
    gap = gap if clip > 10 else gap.detach().clamp(-clip, clip)
    expected = torch.autograd.grad((logp.exp() * gap).sum(), logits)[0]
    torch.testing.assert_close(ours, expected, atol=1e-6, rtol=1e-5)
    assert gaps == pytest.approx((logp - target).tolist(), abs=1e-6)


def test_it_judges_what_was_played_to_the_end_as_it_was_drawn(monkeypatch):
    """Under the temperature of the draws, against the trainer's log-probs where an engine drew them."""
    scored, failed = (
        Trajectory(make_question(IMAGE), IMAGE, [Turn(Prompt((7,)), Reply((3,), (-1.0,), "end"), "")], failed=why)
        for why in (None, "its file is gone")
    )
    scored.turns[0].scored = (-2.0,)
    views = [View((0, 0, 8, 8), (8, 8)), View((0, 0, 4, 4), (8, 8))]
    look = replace(scored, turns=[Turn(Prompt((7,)), Reply((3,), (-1.0,), "end"), "")] * 2, views=views)
    asked = []

    def say(policy, judged, passes, temperature):
        asked.append((len(judged), temperature))
        return [torch.zeros(1) for _ in judged]

    monkeypatch.setattr(self_teacher, "score_replies", say)
    teacher = SelfTeacher()
    teacher.policy = object()
    for why, expected in ((None, [2.0, 0.0]), ("gone", [0.0, 0.0])):
        monkeypatch.setattr(self_teacher, "roll_out", lambda *args, why=why: [replace(look, failed=why)])
        advantages, _ = teacher.advantages([scored, failed], 2, Sampling(8, 0.7), (0, 0), 1000)
        assert torch.cat(advantages).tolist() == expected
    assert asked == [(1, 0.7), (0, 0.7)]


def test_it_moves_by_its_decay_and_never_has_a_gradient(tokenizer):
    policy = make_policy(tokenizer, lora=Lora(rank=2, alpha=4)).train()
    teacher = SelfTeacher(decay=0.75)
    teacher.begin(policy)
    before = {name: p.clone() for name, p in teacher.policy.named_parameters()}
    with torch.no_grad():
        for parameter in policy.parameters():
            parameter.add_(1.0)
    teacher.follow(policy)
    for name, parameter in teacher.policy.named_parameters():
        moved = 0.25 if "lora_" in name else 0.0  # what is frozen does not move
        torch.testing.assert_close(parameter - before[name], torch.full_like(parameter, moved), atol=1e-5, rtol=0)
        assert not parameter.requires_grad
    assert not teacher.policy.training


def test_it_judges_replies_behind_its_crop_as_if_they_were_its_own():
    """One trajectory a pass, put together by hand; nothing where its own box was refused."""
    policy = copy.deepcopy(base()).eval()
    questions = Scenes(6, side=640)
    samples = [(question, question.picture.load()) for question in (questions[i] for i in range(6))]
    rollouts = roll_out(policy, InProcessSampler(), answer_only(), samples, 2, SAMPLING, (0, 0))
    teacher = SelfTeacher(clip=1.0)
    teacher.begin(policy)
    advantages, _ = teacher.advantages(rollouts, 2, SAMPLING, (0, 0), micro_batch_tokens=400)
    looks = roll_out(policy, InProcessSampler(), TwoTurn(), samples, 1, Sampling(32, temperature=0), (0, 0))
    assert len({bool(look.crops) for look in looks}) == 2
    for i, (rollout, values) in enumerate(zip(rollouts, advantages, strict=True)):
        look, reply = looks[i // 2], rollout.turns[0].reply
        if not look.crops:
            assert len(values) == len(reply.ids) and not values.any()
            continue
        first, last = look.turns
        joined = replace(look, turns=[replace(first, learnt=False), replace(last, reply=reply)])
        batch = collate([joined], policy.positions, policy.pad_id)
        with torch.no_grad():
            scores = score(policy, batch).logprobs_NC[batch.policy_NC]
        torch.testing.assert_close(values, (scores - torch.tensor(reply.logprobs)).clamp(-1, 1), atol=1e-3, rtol=1e-3)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A run of three steps, and what it left."""
    folder, module = tmp_path_factory.mktemp("taught"), make()
    steps = watch(module)
    saver = ModelCheckpoint(folder, filename="{step}", every_n_train_steps=1, save_top_k=-1)
    fit(module, folder, questions=6, callbacks=[saver])
    return folder, module, steps


def test_three_steps_move_the_policy_and_the_teacher_behind_it(whole):
    folder, module, steps = whole
    start, learnt = dict(base().named_parameters()), weights(module)
    assert any("teacher_divergence" in step for step in steps)
    assert all("constant_reward" not in step for step in steps)
    assert module.timer.phases["teacher"].seconds > 0
    far, near = (sum((p - start[n]).square().sum() for n, p in w.items()) for w in (learnt, module.teacher.moving))
    assert 0 < near < far / 4
    assert all(p.grad is None for p in module.teacher.policy.parameters())
    assert isinstance(module.dialogue, SingleTurn) and not any(t.crops for t in module.rolled_out)


def test_a_resumed_run_equals_an_uninterrupted_one(whole, tmp_path):
    """Policy and teacher, bit for bit."""
    folder, module, _ = whole
    again = make()
    fit(again, tmp_path, questions=6, ckpt_path=str(folder / "step=1.ckpt"), enable_checkpointing=False)
    assert equal(weights(module), weights(again)) and equal(module.teacher.moving, again.teacher.moving)


def test_no_label_is_learnt_from(whole, tmp_path):
    """The same run with a reward that finds everything right."""
    _, module, _ = whole
    again = make(reward=lambda answer, question: 1.0)
    fit(again, tmp_path, questions=6, enable_checkpointing=False)
    assert equal(weights(module), weights(again))


def test_it_judges_by_the_trainers_log_probs_not_by_an_engines(whole, tmp_path):
    _, _, steps = whole
    module = make(sampler=Skewed(1.0))
    skewed = watch(module)
    fit(module, tmp_path, questions=6, max_steps=1, enable_checkpointing=False)
    assert skewed[0]["teacher_divergence"] == pytest.approx(steps[0]["teacher_divergence"], abs=1e-3)


def test_a_checkpoint_without_a_teacher_is_refused_in_a_sentence(whole, tmp_path):
    folder, _, _ = whole
    state = load_state(folder / "step=1.ckpt")
    del state["teacher"]
    torch.save(state, tmp_path / "bare.ckpt")
    with pytest.raises(UserError, match=r"holds no teacher .* model.policy.init_args.start"):
        fit(make(), tmp_path, questions=6, ckpt_path=str(tmp_path / "bare.ckpt"), enable_checkpointing=False)


@pytest.mark.parametrize(
    ("options", "said"),
    [({"credit": "turn"}, "credit turn"), ({"supervised": True}, "supervised"), ({"dialogue": TwoTurn()}, "one glance"),
     ({"constant_reward_groups": "drop"}, "constant_reward_groups")],
)  # fmt: skip
def test_what_a_teacher_can_not_be_combined_with_is_refused(options, said):
    with pytest.raises(UserError, match=f"model.teacher .*{said}"):
        make(**options)


class Insisting(SingleTurn):
    """Asks twice."""

    def proceed(self, trajectory, resolution):
        super().proceed(trajectory, resolution)
        return [Message("user", ("Are you sure?",))] if len(trajectory.turns) < 2 else None


def test_a_dialogue_that_turns_out_to_have_two_turns_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"model.teacher teaches replies at one glance"):
        fit(make(dialogue=Insisting(judge_box=False)), tmp_path, questions=2, enable_checkpointing=False)


@pytest.mark.parametrize("options", [{"decay": 1.1}, {"decay": -0.1}, {"clip": 0.0}])
def test_impossible_teachers_are_refused(options):
    with pytest.raises(UserError, match=r"model.teacher has decay"):
        SelfTeacher(**options)


def test_weights_too_coarse_to_follow_by_a_hundredth_are_refused(tokenizer):
    """Not where adapters alone are trained, which are float32, nor where the copy never or wholly follows."""
    policy, with_adapters = make_policy(tokenizer), make_policy(tokenizer, lora=Lora(rank=2, alpha=4))
    for parameter in (*policy.parameters(), *(p for p in with_adapters.parameters() if not p.requires_grad)):
        parameter.data = parameter.data.bfloat16()
    SelfTeacher().begin(with_adapters)
    SelfTeacher(decay=1.0).begin(policy)
    SelfTeacher(decay=0.0).begin(policy)
    with pytest.raises(UserError, match=r"model.teacher follows .* bfloat16"):
        SelfTeacher().begin(policy)


def test_sharded_weights_and_a_teacher_are_refused():
    check_strategy("FSDP2Strategy")
    with pytest.raises(UserError, match=r"model.teacher keeps a whole copy .* ddp"):
        check_strategy("FSDP2Strategy", taught=True)
