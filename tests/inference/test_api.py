"""The few lines of Python with which a model is asked."""

from dataclasses import replace

import lightning as L
import numpy as np
import pytest
import torch
import yaml
from PIL import Image

import mgpo
from mgpo.checkpoints.whole import trained
from mgpo.data.scenes import Scenes
from mgpo.dialogues import SingleTurn
from mgpo.errors import UserError
from mgpo.evaluation.report import ELSEWHERE, MISREAD, NO_BOX, NO_LOOK, failures
from mgpo.gallery.drawing import GAP, look, overlay
from mgpo.inference.base import Answer
from mgpo.inference.predict import row_of
from mgpo.policy import Qwen25VL
from mgpo.policy.hub.run_weights import policy_weights
from mgpo.utils.configurations import shipped_config
from tests.conftest import make_question
from tests.helpers.gallery_samples import make_trajectory


@pytest.fixture(scope="module")
def model():
    return mgpo.load()


@pytest.fixture(scope="module")
def question():
    """One of which the base model finds a usable part."""
    return Scenes(4, split="val")[3]


def test_an_answer_holds_what_was_named_cut_and_said(model, question):
    original = question.picture.load()
    answer = model.ask(original, question.text)
    assert answer.answer == question.answer
    assert len(answer.turns) == 2
    (box,), (crop,) = answer.boxes, answer.crops
    left, top, right, bottom = answer.trajectory.crops[0].region
    assert abs(left - box[0]) <= 1 and abs(bottom - box[3]) <= 1  # rounded outwards to whole pixels
    assert crop.tobytes() == original.crop((left, top, right, bottom)).tobytes()
    assert answer._repr_png_()[:4] == b"\x89PNG"
    assert repr(question.answer) in repr(answer)


def test_files_and_choices_can_be_asked_about(model, question, tmp_path):
    question.picture.load().save(tmp_path / "scene.png")
    named = model.ask(tmp_path / "scene.png", question.text, ["C", question.answer, "X"])
    assert named.answer in ("A", "B", "C")
    with pytest.raises(UserError, match="no such file"):
        model.ask(tmp_path / "other.png", question.text)


WRONG = {
    "an array": (dict(image=np.zeros((8, 8, 3), np.uint8)), "not a ndarray; PIL.Image.fromarray makes one"),
    "bytes": (dict(image=b"png"), "not a bytes"),
    "nothing": (dict(image=None), "not a NoneType"),
    "nothing among others": (dict(image=[Image.new("RGB", (8, 8)), None]), "not a NoneType"),
    "a picture without pixels": (dict(image=Image.new("RGB", (0, 10))), "0 x 10 pixels"),
    "no picture": (dict(image=[]), "there is no picture to ask about"),
    "no text": (dict(question=3), "a question is a text, not 3"),
    "an empty text": (dict(question=" "), "a question is a text"),
    "half a character": (dict(question="Wo? \ud83d"), "the question or a choice holds half of a surrogate pair"),
    "half of one in a choice": (dict(choices=["red", "\ud83d"]), "holds half of a surrogate pair"),
    "a text for choices": (dict(choices="red"), "choices are a list of texts, .* not 'red'"),
    "a mapping for choices": (dict(choices={"A": "red"}), "choices are a list of texts"),
    "numbers for choices": (dict(choices=[1, 2]), "choices are a list of texts"),
    "one choice": (dict(choices=["red"]), "1 choices; 2 to 26 can be lettered"),
    "no temperature": (dict(temperature=float("nan")), "sampling.temperature is nan"),
    "no seed": (dict(seed=-1), "to ask: seed is -1; it should be at least 0"),
}


def test_pictures_and_choices_may_come_one_by_one(model, question, tmp_path):
    question.picture.load().save(tmp_path / "0.png")
    asked = model.ask(tmp_path.glob("*.png"), question.text, (choice for choice in ("C", question.answer)))
    assert asked.trajectory.question.choices == ("C", question.answer)


@pytest.mark.parametrize(("given", "said"), WRONG.values(), ids=WRONG)
def test_what_is_no_question_is_told_of(model, given, said):
    with pytest.raises(UserError, match=said):
        model.ask(**{"image": Image.new("RGB", (8, 8)), "question": "Which?", **given})


def test_a_limit_and_a_cap_below_one_are_told_of(model):
    with pytest.raises(UserError, match="evaluate: limit is -1"):
        model.evaluate(Scenes(2, split="val"), limit=-1)
    with pytest.raises(UserError, match="policy: max_pixels is -100; it should be at least 1"):
        mgpo.load(max_pixels=-100)


def test_greedy_answers_repeat_and_a_group_varies(model, question):
    picture = question.picture.load()
    assert model.ask(picture, question.text).turns == model.ask(picture, question.text).turns
    group = model.group(question, rollouts=4)
    assert len({tuple(answer.turns) for answer in group}) > 1
    assert [a.turns for a in model.group(question, rollouts=4)] == [a.turns for a in group]


def test_a_group_is_judged_where_the_answer_is_known(model, question):
    group = model.group(question, rollouts=4, seed=1)
    judged = [answer.trajectory.right for answer in group]
    assert judged == [answer.answer == question.answer for answer in group] and any(judged)
    unknown = model.group(replace(question, answer=""), rollouts=2, seed=1)
    assert not any(answer.trajectory.right for answer in unknown)


@pytest.mark.parametrize(
    ("said", "letter"), [("E", None), ("a stop sign", None), ("B", "B"), ("blue", "B"), (None, None)]
)
def test_an_answer_is_one_of_the_choices_or_none(said, letter):
    image = Image.new("RGB", (400, 400))
    trajectory = make_trajectory(make_question(image, choices=("red", "blue"), answer="A"), image, None, None)
    trajectory.answer = said
    assert Answer(trajectory).answer == letter == row_of(trajectory.question, trajectory)["answer"]


@pytest.mark.parametrize(
    ("box", "why"),
    [((10, 10, 60, 60), None), ((10, 10, 60, 13), "too small"), ((60, 10, 10, 60), "left edge"), (None, "no box")],
)
def test_an_unusable_box_is_said_to_be_unusable(box, why):
    image = Image.new("RGB", (400, 400))
    answer = Answer(make_trajectory(make_question(image), image, box, "K"))
    refused = row_of(answer.trajectory.question, answer.trajectory)["refused"]
    assert refused == answer.refused and refused[1] is None
    assert (refused[0] is None) if why is None else why in refused[0]
    assert ("unusable" in repr(answer)) == (box is not None and why is not None)


def test_another_dialogue(question):
    answer = mgpo.load(dialogue=SingleTurn()).ask(question.picture.load(), question.text)
    assert len(answer.turns) == 1 and answer.crops == []


def test_evaluation_and_counterfactuals_of_a_source(model):
    source = Scenes(5, split="val", side=512)
    records = model.evaluate(source, limit=3, batch_size=2)
    assert [record.id for record in records] == [source[i].id for i in range(3)]
    rows = model.counterfactuals(source, limit=3, batch_size=2)
    assert [row["crop"] for row in rows] == [record.right for record in records]


def test_a_run_is_trained_and_loaded_by_its_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    source = "[{class_path: mgpo.data.Scenes, init_args: {count: 2, side: 256, split: val}}]"
    run = mgpo.fit("mgpo", {
        "data.train.init_args.count": 2, "data.train.init_args.side": 256, "data.batch_size": 2, "data.num_workers": 0,
        "data.val": source, "measure": "never", "trainer.log_every_n_steps": 1, "model.answer_form": "It is {answer}.",
    })  # fmt: skip
    model = mgpo.load(run)
    model.save(tmp_path / "export")
    assert model.answer_form == mgpo.load(tmp_path / "export").answer_form == "It is {answer}."
    best = mgpo.load(run / "checkpoints" / "trained.ckpt")  # a checkpoint is its run's
    assert best.run == run and best.answer_form == model.answer_form
    assert all(torch.equal(v, best.policy.state_dict()[name]) for name, v in model.policy.state_dict().items())
    before = (run / "config.yaml").read_text()
    again = {"trainer.logger.init_args.version": 0, "data.val": source, "measure": "never"}
    with pytest.raises(UserError, match="version_0 holds the checkpoints of another run; begin a run in a folder of"):
        mgpo.fit("mgpo", again)
    assert (run / "config.yaml").read_text() == before
    saved = policy_weights(str(trained(run)))
    assert all(torch.equal(value, saved[name]) for name, value in model.policy.state_dict().items())
    assert (
        model.dialogue.rule.min_side
        == yaml.safe_load(shipped_config("mgpo").read_text())["model"]["dialogue"]["init_args"]["rule"]["min_side"]
    )
    for path in (run, run / "checkpoints" / "trained.ckpt"):
        module = mgpo.MGPO.load_from_checkpoint(path, group_size=3)
        assert (module.step, module.group_size, module.objective.kl_weight) == (1, 3, 0.05)
        assert module.make_optimizer([torch.nn.Parameter(torch.zeros(1))]).param_groups[0]["lr"] == 1.5e-4
        assert all(torch.equal(value, saved[name]) for name, value in module.policy.state_dict().items())
    for checkpoint in (run / "checkpoints").iterdir():
        checkpoint.unlink()
    for load in (mgpo.load, mgpo.MGPO.load_from_checkpoint):
        with pytest.raises(UserError, match="has saved no weights"):
            load(run)
    (run / "config.yaml").write_text("model: {policy: {class_path: mgpo.policy.NoSuch}}")
    (run / "checkpoints" / "last.ckpt").touch()
    with pytest.raises(UserError, match=r"does not say what the run's model is made of.*NoSuch"):
        mgpo.MGPO.load_from_checkpoint(run)
    with pytest.raises(UserError, match="neither a run's folder"):
        mgpo.MGPO.load_from_checkpoint(tmp_path / "x.ckpt")


def test_a_plain_trainer_is_enough(tmp_path):
    """Without the command line, and from a policy that is loaded already: the penalty has its reference."""
    module = mgpo.MGPO(
        mgpo.load().policy.train(), objective=mgpo.Objective(kl_weight=0.1), group_size=2,
        sampling=mgpo.Sampling(max_new_tokens=4),
    )  # fmt: skip
    data = mgpo.VQAData(train=mgpo.Scenes(2, side=256), batch_size=2, num_workers=0)
    trainer = L.Trainer(
        accelerator="cpu", devices=1, max_epochs=1, logger=False, enable_checkpointing=False, default_root_dir=tmp_path,
        enable_progress_bar=False, enable_model_summary=False, log_every_n_steps=1, limit_val_batches=0,
    )  # fmt: skip
    trainer.fit(module, data)
    assert trainer.global_step == 1
    assert trainer.callback_metrics["train/kl"] == pytest.approx(0, abs=1e-5)  # it is the policy of before


def test_unknown_names_are_refused():
    with pytest.raises(UserError, match=r"there is no file mpgo, .*did you mean mgpo"):
        mgpo.fit("mpgo")
    with pytest.raises(AttributeError, match="lode"):
        _ = mgpo.lode


def test_options_of_a_plain_checkpoint_are_checked():
    plain = Qwen25VL("embedded").path
    assert mgpo.load(plain, max_pixels=7840).resolution.full.max_pixels == 7840
    with pytest.raises(UserError, match="max_pixel"):
        mgpo.load(plain, max_pixel=7840)
    with pytest.raises(UserError, match="device is 'gpu', which can't be used"):
        mgpo.load(plain, device="gpu", max_pixels=7840)


def test_failures_are_told_apart(model):
    source = Scenes(24, kinds=("attribute", "counting"), split="val", side=512)
    records = model.evaluate(source)
    kinds = failures(records)
    assert sum(len(part) for part in kinds.values()) == sum(not record.right for record in records)
    assert all(record.valid_box is False for record in kinds[NO_BOX])
    assert all(record.subimage_right is False for record in kinds[ELSEWHERE])
    assert all(record.subimage_right for record in kinds[MISREAD])
    assert kinds[NO_LOOK] == []


def test_pictures_of_looks(model, question):
    group = model.group(question, rollouts=3)
    with_crop = model.ask(question.picture.load(), question.text)
    assert look(with_crop.trajectory, side=160).width == 3 * 160 + 2 * GAP
    assert overlay([answer.trajectory for answer in group]).width == 320
