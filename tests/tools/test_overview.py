"""`mgpo data`: what training will see is what it sees, told before a weight is read."""

import base64
import json
import re
import shutil
from pathlib import Path

import pytest
from PIL import ExifTags, Image

from mgpo.cli import main
from mgpo.data import Files, Mixture, Part, Scenes
from mgpo.data.remote_images import WebPicture
from mgpo.dialogues import FreeTurns, SingleTurn, TwoTurn
from mgpo.errors import UserError
from mgpo.images.decoding import FilePicture, open_image, size_of
from mgpo.policy.base import Policy
from mgpo.policy.hub.checkpoint_files import family_of
from mgpo.policy.lora import Lora
from mgpo.tools.overview.command import arguments, overview
from mgpo.tools.overview.facts import answer_kind, kind_of, look, summarise
from mgpo.tools.overview.told import conversation
from mgpo.types import Question, Trajectory
from mgpo.utils.configurations import shipped_config
from tests.conftest import make_question, noise_image


@pytest.fixture
def folder(tmp_path):
    for name, size in {"a.jpg": (400, 200), "b.png": (100, 300), "c.png": (64, 64)}.items():
        noise_image(*size).save(tmp_path / name)
    (tmp_path / "broken.jpg").write_text("no image")
    row = {"image": "a.jpg", "question": "What?", "answer": "7", "category": "number"}
    rows = [
        row,
        {**row, "image": "b.png", "answer": "EXIT", "category": "sign"},
        {**row, "image": "c.png", "choices": ["red", "blue"], "answer": "blue", "category": "colour"},
        {**row, "question": "long " * 900, "category": "sign"},
        {**row, "image": "none.png"},
        {**row, "image": "neither.png"},
        {**row, "image": "broken.jpg"},
        {**row, "answer": "green", "choices": ["red", "blue"]},
        row,
    ]
    (tmp_path / "q.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return tmp_path


def test_lengths_are_those_of_the_prompts_that_training_makes(policy, folder):
    source = Files(str(folder / "q.jsonl"))
    for dialogue in (TwoTurn(), SingleTurn(), FreeTurns()):
        for fact in look(policy, dialogue, source, 10, 32):
            image = fact.question.picture.load()
            trajectory = Trajectory(fact.question, image)
            messages = dialogue.open(trajectory, policy.resolution)
            prompt = policy.chat.open(messages, lambda view, image=image: policy.pixels(view.pixels(image)))
            assert fact.tokens == len(prompt.ids)
            assert (fact.size, fact.seen) == (image.size, trajectory.views[0].size)


def test_a_summary_counts_what_is_there_and_what_is_left_out(policy, folder, monkeypatch):
    monkeypatch.setattr(policy, "max_prompt_tokens", 500)
    source = Files(str(folder / "q.jsonl"))
    summary = summarise(policy, source, look(policy, TwoTurn(), source, 100, 32))
    assert (summary["questions"], summary["looked_at"]) == (4, 4)
    assert summary["by_category"] == {"sign": 2, "number": 1, "colour": 1}
    assert summary["answers"] == {"number": 2, "words": 1, "option": 1}
    assert summary["pictures"]["width"] == {"min": 64, "median": 250, "max": 400}
    lengths = summary["prompt_tokens"]
    assert lengths["min"] < 500 < lengths["max"] and lengths["above_max_prompt_tokens"] == 1
    assert lengths["beyond_positions"] == 0
    counts = {kind: found["count"] for kind, found in summary["left_out"].items()}
    assert counts == {
        "column image: there is no such file": 2,
        "column image: this is not an image that can be read": 1,
        "column answer: … is not among the N choices of column choices": 1,
        "the same as row N": 1,
        "a prompt above policy.max_prompt_tokens": 1,
    }
    assert "none.png" in summary["left_out"]["column image: there is no such file"]["examples"][0]
    json.dumps(summary, allow_nan=False)


def test_what_the_model_has_no_positions_for_is_counted(policy, monkeypatch):
    monkeypatch.setattr(policy, "max_positions", 60)
    source = Scenes(5, side=64)
    summary = summarise(policy, source, look(policy, TwoTurn(), source, 5, 50))
    assert summary["prompt_tokens"]["beyond_positions"] == 5
    assert summary["left_out"]["a prompt beyond the model's positions"]["count"] == 5


def test_sources_of_a_mixture_are_told_apart(policy, folder):
    source = Mixture([Part(Files(str(folder / "q.jsonl")), name="mine"), Part(Scenes(6, side=64), name="scenes")])
    summary = summarise(policy, source, look(policy, TwoTurn(), source, 100, 32))
    assert summary["by_source"] == {"scenes": 6, "mine": 4}
    example = summary["left_out"]["column image: there is no such file"]["examples"][0]
    assert example.startswith("mine, row 5")


def test_a_choice_of_many_questions_is_always_the_same_and_in_no_step_with_them(policy):
    source = Scenes(400, kinds=["attribute", "counting", "relative_position", "attribute_choice"], side=64)
    first, again = (look(policy, TwoTurn(), source, 100, 32) for _ in range(2))
    assert [fact.question.id for fact in first] == [fact.question.id for fact in again]
    counts = summarise(policy, source, first)["by_category"]
    assert sum(counts.values()) == 100 and len(counts) == 4 and min(counts.values()) > 10


def test_pictures_behind_addresses_are_not_fetched(policy, monkeypatch):
    monkeypatch.setattr(WebPicture, "read", lambda self: pytest.fail("fetched"))
    question = Question("q", WebPicture("http://example.org/a.png", "."), "?", "1")
    facts = look(policy, TwoTurn(), [question], 1, 32)
    summary = summarise(policy, [question], facts)
    assert summary["pictures"]["unopened"] == 1 and not summary["left_out"]
    assert "min" not in summary["prompt_tokens"]


@pytest.mark.parametrize(
    ("question", "kind"),
    [
        (make_question(None, answer="B", choices=("1", "2")), "option"),
        (make_question(None, answer="1,200"), "number"),
        (make_question(None, answer="Twelve"), "number"),
        (make_question(None, answer="12:30"), "words"),
        (make_question(None, answer="EXIT 5"), "words"),
    ],
)
def test_kinds_of_answers(question, kind):
    assert answer_kind(question) == kind


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("row 3, column image: /a/b: c.png: there is no such file", "row 12, column image: x: there is no such file"),
        ("row 3, column answer: 'a: b' is not among the 2", "row 4, column answer: \"it's\" is not among the 31"),
        ("mine, row 1, the same as row 2", "row 10, the same as row 99"),
        ("x.jpg: 90,000 x 3 pixels are more than the 9 that are decoded; shrink it",
         "y.jpg: 1 x 2 pixels are more than the 180,000,000 that are decoded; shrink it"),
        ("row 1, column image: a: the image is damaged (1 bytes)", "row 2, column image: b: the image is damaged (x)"),
    ],
)  # fmt: skip
def test_reasons_are_of_one_kind_whatever_the_row(one, other):
    assert kind_of(one) == kind_of(other)


def test_reasons_are_bounded_and_differ_by_column():
    assert kind_of("row 1, column image: it is empty") != kind_of("row 1, column answer: it is empty")
    assert kind_of('row 1, column answer: it is no choice; give {"A": "red"}') == "column answer: it is no choice"
    assert len(kind_of("x" * 100_000)) <= 300


@pytest.mark.parametrize("form", ["jpeg", "png", "webp", "tiff"])
@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
def test_the_size_of_a_picture_is_that_of_its_upright_pixels(tmp_path, form, orientation):
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    path = tmp_path / f"a.{form}"
    noise_image(40, 20).save(path, exif=exif)
    assert size_of(FilePicture(str(path))) == open_image(path).size
    (tmp_path / "q.json").write_text(json.dumps(
        [{"image": base64.b64encode(path.read_bytes()).decode(), "question": "?", "answer": "1"}]
    ))  # fmt: skip
    assert size_of(Files(str(tmp_path / "q.json"))[0].picture) == open_image(path).size


def test_sizes_are_told_without_decoding(tmp_path, monkeypatch):
    for form in ("jpeg", "png", "webp"):
        noise_image(40, 20).save(tmp_path / f"a.{form}")
        monkeypatch.setattr(Image.Image, "load", lambda self: pytest.fail("decoded"))
        assert size_of(FilePicture(str(tmp_path / f"a.{form}"))) == (40, 20)
        monkeypatch.undo()
    question = Scenes(1)[0]
    monkeypatch.setattr(type(question.picture), "load", lambda self: pytest.fail("drawn"))
    assert size_of(question.picture) == (2048, 2048)


def test_prompts_are_the_same_without_weights(family, family_folder, family_policy, tmp_path):
    """Of every family, from a folder that holds none."""
    files = [file for file in family_folder.iterdir() if file.suffix not in (".safetensors", ".bin")]
    for file in files:
        shutil.copy(file, tmp_path)
    empty = family_of(str(tmp_path))(str(tmp_path), lora=Lora(rank=2), **family.caps).load(weights=False)
    question = make_question(noise_image(300, 200))
    whole, hollow = (look(policy, TwoTurn(), [question], 1, 32)[0] for policy in (family_policy, empty))
    assert whole == hollow and whole.tokens
    assert empty.max_positions == family_policy.max_positions
    assert all(weight.is_meta for weight in empty.parameters())
    told = conversation(empty, TwoTurn(), hollow)
    assert len(re.findall(r"\[picture \d+x\d+, [1-9]\d* tokens\]", told)) == 2
    assert empty.token_texts[empty.chat.image_id] not in told
    assert told.count(question.text) == 2


def test_arguments_are_those_of_fit():
    default = ["--config", str(shipped_config("mgpo"))]
    assert arguments(["--limit", "5"]) == [*default, "--limit", "5"]
    alone = ["--data.train", "mgpo.data.Files", "--data.train.path", "q.jsonl", "--data.val", "[]", "--data.test", "[]"]
    assert arguments(["--data=q.jsonl"]) == arguments(["--data", "q.jsonl"]) == [*default, *alone]
    named = ["--config", "a.yaml", "--data", "b.yaml"]
    assert arguments(named) == named


def test_the_command_reads_no_weights(folder, monkeypatch, capsys):
    monkeypatch.setattr("mgpo.policy.pretrained.read_weights", lambda *_, **__: pytest.fail("weights were read"))
    main(["data", "--data", str(folder / "q.jsonl"), "--output", str(folder / "seen")])
    said = capsys.readouterr().out
    assert "data.train: 4 questions" in said and "data.val" not in said
    assert "there is no such file" in said and re.search(r"\[picture \d+x\d+, \d+ tokens\]", said)
    assert {path.name for path in (folder / "seen").iterdir()} == {"overview.json", "prompts.txt", "questions.html"}
    report = json.loads((folder / "seen" / "overview.json").read_text())
    assert report["train"][0]["questions"] == 4
    assert (folder / "seen" / "questions.html").read_text().count("<li>") == 4
    assert (folder / "seen" / "prompts.txt").read_text().count("[the model answers]") == 4


def test_the_command_shows_training_validation_and_each_source(folder, capsys):
    part = {"class_path": "mgpo.data.Scenes", "init_args": {"count": 12, "side": 64}}
    mixture = {"class_path": "mgpo.data.Mixture", "init_args": {"parts": [{"name": "scenes", "source": part}]}}
    main(["data", f"--data.train={json.dumps(mixture)}", "--limit", "8", "--output", str(folder / "seen")])
    said = capsys.readouterr().out
    assert "data.train: 12 questions, of which 8 were looked at" in said and "scenes" in said
    assert said.count("data.val: 256 questions") == 2


def test_mistakes_are_one_sentence(folder):
    with pytest.raises(SystemExit, match="limit is 0"):
        main(["data", "--data", str(folder / "q.jsonl"), "--limit", "0"])
    with pytest.raises(SystemExit, match=r"none\.jsonl: there is no such file"):
        main(["data", "--data", "none.jsonl"])
    with pytest.raises(SystemExit, match="questions are read from"):
        main(["data", "--data", str(folder / "a.jpg")])
    with pytest.raises(SystemExit, match="--data: name a file"):
        main(["data", "--data"])
    (folder / "file").touch()
    with pytest.raises(SystemExit, match="can't be written"):
        main(["data", "--data", str(folder / "q.jsonl"), "--output", str(folder / "file")])


class NoFamily(Policy):
    """A policy of someone's own that derives from no family; nothing of it is asked for."""

    load = pixels = blank = positions = features = new_cache = new_row_cache = decode = logits = None
    head_weight = None


def test_a_policy_of_ones_own_is_refused():
    config = {"model": {"policy": {"class_path": f"{__name__}.NoFamily"}}, "data": {}}
    with pytest.raises(UserError, match="no family"):
        overview(config, 1, str(Path("none")))
