"""What `plan` says of passes between rollouts and updates, against what evidence and a teacher really pass and hold."""

import json
from dataclasses import replace
from unittest.mock import patch

import pytest

from mgpo.cli import main
from mgpo.dialogues import TwoTurn, answer_only
from mgpo.evaluation.evidence import look_margins
from mgpo.policy.lora import Lora
from mgpo.rollout.episodes import ANSWER_FORM
from mgpo.rollout.in_process import Sampling
from mgpo.tools.doctor.examine import memory
from mgpo.tools.plan.advice import advise, filled, shards
from mgpo.tools.plan.extra_passes import evidence_passes, teacher_passes
from mgpo.tools.plan.launch import GB, Devices
from mgpo.tools.plan.memory import measure, tokens
from mgpo.tools.plan.shape import measure_shape
from mgpo.tools.plan.sizes import QWEN2_5_VL
from mgpo.tools.plan.time import seconds
from mgpo.training.module import MGPO
from mgpo.training.self_teacher import SelfTeacher
from mgpo.types import conversations
from mgpo.utils.configurations import shipped_config
from tests.conftest import make_policy
from tests.performance.live import AtOnce, Live
from tests.performance.memory import beyond, build, dialogue_of, launch_of, rollouts
from tests.tools.test_doctor_mistakes import ON_A_GPU
from tests.tools.test_plan import SMALL, launch
from tests.tools.test_plan_time import HERE, LAUNCH, SHAPE, UNIT

KEY = (0, 0)


class Passed:
    """How many tokens and patches a policy's decoder and tower are given."""

    def __init__(self, policy):
        self.tokens = self.patches = 0
        decode, tower = policy.decode, policy.tower

        def counted(ids, *others):
            self.tokens += ids.numel()
            return decode(ids, *others)

        def seen(images):
            self.patches += sum(len(image.patches) for image in images)
            return tower(images)

        policy.decode, policy.tower = counted, seen


@pytest.mark.parametrize("changes", [{"looks": 2}, {"blind": True}, {"micro": 24, "pictures": 2}, {"lora": 8}], ids=str)
def test_evidence_takes_what_was_planned(changes, tokenizer):
    setting = replace(SMALL, **changes)
    policy = build(setting, tokenizer)
    trajectories = rollouts(policy, setting)
    usual = launch_of(setting, policy, trajectories)
    answer = len(policy.chat.encode_text(ANSWER_FORM.replace("{answer}", "K"))) + 1
    planned = replace(usual, looked=usual.said, answer=answer)
    shape = measure_shape(policy.model.config)
    needed, passed = measure(shape, planned), Passed(policy)
    pixels = [image.patches for t in trajectories for turn in t.turns for image in turn.prompt.images]
    with Live([*policy.parameters(), *policy.buffers(), *pixels]) as passing, policy.at_rest():
        look_margins(policy, trajectories, ANSWER_FORM, planned.micro_tokens, crops_alone=True)
    black = needed.evidence["pictures"] - needed.rollouts["pictures"]
    assert beyond(needed.evidence) + black == pytest.approx(passing.peak, rel=0.1)
    counted = tokens(shape, planned)
    unfed = len(trajectories) * (1 + setting.looks) * len(conversations(trajectories[0].turns))  # the last of each
    assert counted["evidence"] - unfed == passed.tokens
    if not setting.lora:  # or the tower is frozen, and remembers what it has seen
        assert counted["patches in evidence"] == passed.patches


@pytest.mark.parametrize("changes", [{"pictures": 2}, {"looks": 2}, {"blind": True, "micro": 16}], ids=str)
def test_a_teacher_takes_what_was_planned(changes, tokenizer):
    setting = replace(SMALL, **changes)
    policy = build(setting, tokenizer)
    trajectories = rollouts(policy, setting, answer_only())
    teacher = SelfTeacher(dialogue_of(setting))
    teacher.begin(policy)
    assert teacher.policy is not None
    looks = rollouts(policy, setting)
    shown = launch_of(setting, policy, looks)
    planned = replace(launch_of(setting, policy, trajectories), crop=shown.crop, teacher=shown.said)
    shape = measure_shape(policy.model.config)
    needed, passed = measure(shape, planned), Passed(teacher.policy)
    assert needed.update["teacher"] == sum(p.nbytes for p in teacher.policy.parameters())
    held = [*policy.parameters(), *policy.buffers(), *teacher.policy.parameters(), *teacher.policy.buffers()]
    pixels = [image.patches for t in trajectories for turn in t.turns for image in turn.prompt.images]
    with Live([*held, *pixels]) as passing, patch("mgpo.rollout.episodes.ThreadPoolExecutor", AtOnce):
        _, gaps = teacher.advantages(trajectories, setting.group, Sampling(setting.reply), KEY, planned.micro_tokens)
    assert len(gaps) == len(trajectories) * setting.reply  # all were taught
    seen = needed.teacher["pictures"] - needed.rollouts["pictures"]
    assert beyond(needed.teacher) + seen == pytest.approx(passing.peak, rel=0.2)
    counted = tokens(shape, planned)
    parts = len(conversations(looks[0].turns))
    unfed = (setting.questions + len(trajectories)) * parts  # the last of each
    assert sum(counted[f"teacher {kind}"] for kind in ("prefill", "decoded", "scoring")) - unfed == passed.tokens
    assert counted["patches in looks"] + counted["patches in teacher scoring"] == passed.patches


@pytest.fixture
def plan(tmp_path):
    def run(name, *arguments):
        main(["plan", "--config", str(shipped_config(name)), *arguments, f"--output={tmp_path / 'plan.json'}"])
        return json.loads((tmp_path / "plan.json").read_text())

    return run


def test_several_pictures_are_all_counted(plan, capsys):
    one, three = (plan("mgpo", f"--pictures={count}") for count in (1, 3))
    assert [turn["image"] for turn in three["turns"]] == [60, 20]
    assert three["turns"][0]["shown"] > one["turns"][0]["shown"] + 40  # and their numbers
    assert (
        three["tokens"]["assumed"]["patches in rollouts"] - one["tokens"]["assumed"]["patches in rollouts"] == 8 * 160
    )
    assert three["memory"]["assumed"]["peak"] > one["memory"]["assumed"]["peak"]
    assert "a question has 3 pictures (--pictures)" in " ".join(capsys.readouterr().out.split())


def test_a_question_has_a_picture():
    with pytest.raises(SystemExit, match="pictures is 0"):
        main(["plan", "--config", str(shipped_config("mgpo")), "--pictures=0"])


def test_the_doctor_plans_for_the_questions_that_it_has(fresh_policy):
    one, many = (memory(fresh_policy, TwoTurn(), ON_A_GPU, 100, pictures) for pictures in (1, 32))
    assert one.passed and one.text != many.text


def test_an_answer_from_the_crop_alone_begins_anew(plan, capsys):
    blind = plan("mgpo", f"--config={shipped_config('blind')}")
    assert [turn["fresh"] for turn in blind["turns"]] == [False, True] and "2, anew" in capsys.readouterr().out
    usual = plan("mgpo")
    assert blind["turns"][1]["image"] == 10  # the crop's, and never the whole picture again
    assert blind["memory"]["assumed"]["rollouts"]["cache"] < usual["memory"]["assumed"]["rollouts"]["cache"]


def test_looks_with_credit_of_their_own_have_evidence(plan, capsys):
    usual, credited = plan("mgpo"), plan("mgpo", "--model.credit=turn")
    assert usual["memory"]["assumed"]["evidence"] == {} and "evidence" not in usual["tokens"]["assumed"]
    printed = " ".join(capsys.readouterr().out.split())
    assert "every box is usable, right answers have" in printed and "patches in evidence" in printed
    counted = credited["tokens"]["assumed"]
    assert counted["training"] < counted["evidence"] < 2 * counted["training"]  # both sides, with shorter last replies
    glance = plan("grpo", "--model.credit=turn")  # has no looks
    assert glance["memory"]["assumed"]["evidence"] == {}


def test_one_glance_is_planned_with_its_teacher(plan, policy):
    taught = plan("one_glance")
    assert len(taught["turns"]) == 1
    assert taught["memory"]["assumed"]["update"]["teacher"] == taught["memory"]["assumed"]["update"]["weights"]
    alone = plan("one_glance", "--model.teacher=null", "--model.dialogue=mgpo.dialogues.SingleTurn")
    module = MGPO(make_policy(policy.tokenizer), teacher=SelfTeacher())
    assert module.teacher is not None
    module.teacher.begin(module.policy)
    checkpoint = {}
    module.on_save_checkpoint(checkpoint)
    more = taught["disk"]["checkpoint"] - alone["disk"]["checkpoint"]
    assert more / taught["model"]["parameters"] == sum(w.nbytes for w in checkpoint["teacher"].values()) / sum(
        p.numel() for p in module.policy.parameters()
    )


def test_a_teacher_is_not_cut(capsys):
    with pytest.raises(SystemExit, match=r"model\.teacher keeps a whole copy"):
        main(["plan", f"--config={shipped_config('one_glance')}", f"--config={shipped_config('fsdp')}"])
    taught = launch(devices=Devices(8), teacher=launch().said)
    assert list(shards(taught)) == [] and len(list(shards(launch(devices=Devices(8))))) == 1


def test_what_passes_before_an_update_has_to_fit_too():
    """With adapters under checkpointing an update of few tokens holds less than all weights gathered for evidence."""
    shape = measure_shape(QWEN2_5_VL.config("7b"))
    start = launch(lora=(16, Lora().pattern), gradient=4, checkpointing=True, devices=Devices(8, shards=8), drawn=True)
    credited = replace(start, looked=start.said, answer=6)
    needed = measure(shape, credited)
    assert needed.peak == needed.of("evidence") > measure(shape, start).peak
    assert needed.evidence["gathered weights"] == 2 * shape.parameters
    limit = needed.peak - GB
    found = filled(shape, credited, limit)
    most = filled(shape, start, limit)
    assert most and (found is None or found < most)
    assert all(one.memory.peak <= limit for one in advise(shape, credited, limit))


def test_extra_passes_counted_by_hand():
    """A prompt of 9 tokens and 2 of a reply; then 7 with 4 of a crop, and 3 of an answer: a row a pass, so 8 of 21."""
    said = (replace(LAUNCH.said[0]), replace(LAUNCH.said[1], crops=1))
    credited = replace(LAUNCH, looked=said, answer=3)
    largest, _, count = evidence_passes(credited)
    assert (largest.tokens, count) == (21, 8)
    found = seconds(SHAPE, credited, UNIT, HERE)
    language = 8 * (2 * 2 * 100 * 21 + 4 * 4 * 2 * (32 + 13 * 8 + 13**2 / 2) + 2 * 10 * 4 * 3)
    assert found["evidence"] == pytest.approx(language / 0.5 + 8 * 2 * 50 * 32 / 0.25)
    assert {**found, "evidence": 0} == {**seconds(SHAPE, LAUNCH, UNIT, HERE), "evidence": 0}


def test_a_teacher_s_seconds_are_those_of_its_looks_and_of_what_it_scores():
    said = (replace(LAUNCH.said[0]), replace(LAUNCH.said[1], crops=1))
    found = seconds(SHAPE, replace(LAUNCH, teacher=said), UNIT, HERE)
    alone = seconds(SHAPE, replace(LAUNCH, said=said, group=1), UNIT, HERE)
    largest, _, count = teacher_passes(replace(LAUNCH, teacher=said))
    assert (largest.tokens, largest.sampled, largest.image_tokens, count) == (8 + 12, 2, 8, 4)
    language = 4 * (2 * 2 * 100 * 20 + 4 * 4 * 2 * (32 + 12 * 8 + 72) + 2 * 10 * 4 * 2)
    scored = language / 0.5 + 4 * 2 * 50 * 32 / 0.25
    assert found["teacher"] == pytest.approx(alone["prefill"] + alone["decode"] + scored)


def test_what_begins_anew_sees_nothing_before():
    anew = replace(LAUNCH, said=(LAUNCH.said[0], replace(LAUNCH.said[1], fresh=True)))
    usual, found = (seconds(SHAPE, one, UNIT, HERE) for one in (LAUNCH, anew))
    # Of 4 rows, the later turn's 3 tokens saw 11 before them, and its reply of 2 tokens too.
    assert usual["prefill"] - found["prefill"] == pytest.approx(2 * 4 * 4 * 4 * 3 * 11 / 0.5)
    assert usual["decode"] - found["decode"] == pytest.approx(2 * 4 * 4 * 4 * 2 * 11 / 0.5)
    # In training the 5 tokens of the turn no longer see 8 of the prompt, nor 3 of the row.
    assert usual["training"] - found["training"] == pytest.approx(3 * 2 * 4 * 4 * 2 * 2 * 5 * (8 + 3) / 0.5)
