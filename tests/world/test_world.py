import numpy as np
import pytest

from mgpo.answers import LETTERS as OPTIONS
from mgpo.data.scenes import Scenes
from mgpo.images.views import View
from mgpo.policy.families.qwen_pixels import PixelBudget
from mgpo.world.questions import KINDS, NOT_SHOWN, sample_question
from mgpo.world.scenes import COLOURS, LETTERS, draw, sample_scene
from mgpo.world.teacher import Habits, teacher_box
from mgpo.world.tower import label
from mgpo.world.transcripts import Transcripts


@pytest.mark.parametrize("kind", KINDS)
def test_answers_follow_from_the_scene(kind):
    for i in range(40):
        question, marks = sample_question(kind, (1, 0, i), 256, "train")
        assert all(mark.colour in question.text for mark in marks)
        assert sum(colour in question.text for colour in COLOURS) == len(marks)
        if kind == "relative_position":
            left, right = sorted(marks, key=lambda mark: mark.x)
            assert question.answer == left.bears + right.bears
        elif kind == "attribute_choice":
            chosen = question.choices[OPTIONS.index(question.answer)]
            shown = marks[0].bears in question.choices
            assert chosen == (marks[0].bears if shown else NOT_SHOWN)
            assert len(set(question.choices)) == 5
        else:
            assert question.answer == marks[0].bears


def test_marks_do_not_overlap_and_have_their_own_colours():
    for seed in range(30):
        marks = sample_scene(np.random.default_rng(seed)).marks
        assert len({mark.colour for mark in marks}) == len(marks)
        for i, a in enumerate(marks):
            for b in marks[i + 1 :]:
                assert np.hypot(a.x - b.x, a.y - b.y) > a.radius + b.radius


def test_the_content_is_lost_at_the_cap_and_there_in_the_crop():
    """Two scenes that differ in one letter are far closer in the first view than in a crop of the mark."""
    question, (mark,) = sample_question("attribute", (5, 0, 0), 2048, "train")
    scene = question.picture.scene
    other = type(mark)(**{**vars(mark), "bears": "H" if mark.bears != "H" else "L"})
    changed = type(scene)(tuple(other if m is mark else m for m in scene.marks), scene.corners, scene.strokes)
    images = [draw(scene, 2048), draw(changed, 2048)]
    first = View.full((2048, 2048), PixelBudget(784, 112 * 112, 28))
    assert 2048 / first.size[0] >= 12
    box = tuple(
        112 * v for v in (mark.x - mark.radius, mark.y - mark.radius, mark.x + mark.radius, mark.y + mark.radius)
    )
    crop = first.crop(box, PixelBudget(784, 84 * 84, 28))

    def pixels_that_differ(view):
        a, b = (np.asarray(view.pixels(image), dtype=float) for image in images)
        return (np.abs(a - b).max(-1) > 60).sum()

    assert pixels_that_differ(first) <= 9
    assert pixels_that_differ(crop) > 20 * max(1, pixels_that_differ(first))


def test_numbers_colours_and_capitals_are_single_tokens(tokenizer):
    for atom in [*map(str, range(257)), *COLOURS, *LETTERS]:
        assert len(tokenizer.encode(atom, add_special_tokens=False)) == 1
    assert len(tokenizer.encode('[{"bbox_2d": [0, 45, 112, 88]', add_special_tokens=False)) < 12
    for text in ["Grüße, 世界 🙂", "\n\t a  b"]:
        assert tokenizer.decode(tokenizer.encode(text, add_special_tokens=False)) == text


def test_the_teacher_looks_where_the_mark_is():
    rng = np.random.default_rng(0)
    for i in range(50):
        _, marks = sample_question(KINDS[i % 4], (7, 0, i), 256, "train")
        x1, y1, x2, y2 = teacher_box(marks, 112, "good", rng)
        assert x1 >= 0 and x2 <= 112 and y1 >= 0 and y2 <= 112
        assert min(x2 - x1, y2 - y1) > 28
        assert all(x1 <= mark.x * 112 <= x2 and y1 <= mark.y * 112 <= y2 for mark in marks)
        tight = teacher_box(marks[:1], 112, "tight", rng)
        assert tight[2] - tight[0] <= 28
        left, top, right, bottom = teacher_box(marks, 112, "inverted", rng)
        assert left > right or top > bottom


def test_transcripts_have_right_labels(policy):
    data = Transcripts(policy, 1, 2, 256, Habits(), 3)
    ((batch, labels),) = list(data)
    assert labels.shape == (*batch.ids_NC.shape, 4)
    placed = labels[..., 0] >= 0
    assert {policy.token_texts[i] for i in batch.ids_NC[placed].tolist()} <= set(COLOURS)
    assert not (batch.policy_NC & (labels >= 0).any(-1)).any()


def test_labels_of_a_picture_stand_where_the_marks_are():
    scene = sample_scene(np.random.default_rng(4))
    labels = label(scene, 112, (0, 0, 1, 1), read=False).view(4, 4, 4)
    mark = scene.marks[-1]
    there = labels[int(mark.y * 4), int(mark.x * 4)]
    assert there[0] == list(COLOURS).index(mark.colour)
    assert there[1] == -100  # what it bears is not learnt from whole pictures


def test_splits_share_no_scene():
    scenes = [{Scenes(50, split=split)[i].picture.scene.marks for i in range(50)} for split in ("train", "val", "ood")]
    assert not scenes[0] & scenes[1] | scenes[1] & scenes[2] | scenes[0] & scenes[2]


def test_large_marks_can_be_read_at_the_cap_and_their_boxes_hold_them():
    rng = np.random.default_rng(0)
    for i in range(20):
        _, marks = sample_question(KINDS[i % 4], (7, 0, i), 256, "train", large=True)
        for mark in marks:
            assert 2 * mark.radius * 112 >= 22  # a small mark has as many pixels in its crop
        x1, y1, x2, y2 = teacher_box(marks, 112, "good", rng)
        assert 0 <= x1 < x2 <= 112 and 0 <= y1 < y2 <= 112
        assert all(x1 <= mark.x * 112 <= x2 and y1 <= mark.y * 112 <= y2 for mark in marks)
