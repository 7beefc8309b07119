from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from mgpo.answers import LETTERS as OPTIONS
from mgpo.data.scenes import SPLITS, Scenes
from mgpo.images.views import View
from mgpo.policy.families.qwen_pixels import PixelBudget
from mgpo.world.questions import KINDS, NOT_SHOWN, STYLES, sample_question
from mgpo.world.scenes import COLOURS, LETTERS, TEST, Mark, Scene, _slope, draw, sample_scene
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
    scenes = [{question.picture.scene.marks for question in Scenes(50, split=split)} for split in SPLITS]
    assert len(set().union(*scenes)) == sum(map(len, scenes)) == 200


def test_the_test_split_is_printed_in_a_face_and_on_grounds_that_no_other_split_has():
    seen = {split: [question.picture.scene for question in Scenes(20, split=split)] for split in SPLITS}
    for split, scenes in seen.items():
        assert {scene.face for scene in scenes} == {"strokes" if split == "test" else "printed"}
        assert all(bool(scene.waves) is (split == "test") for scene in scenes)


@pytest.mark.parametrize("letter", LETTERS)
def test_both_faces_draw_a_letter_in_its_place_and_height(letter):
    for face in ("printed", "strokes"):
        mark = Mark("white", letter, 0.5, 0.5, 0.4, 0.3)
        scene = Scene((mark,), ((255,) * 3, (255,) * 3, (0,) * 3, (0,) * 3), (), face=face)
        ink = Image.eval(draw(scene, 400).convert("L"), lambda value: 255 * (value < 128)).getbbox()
        assert abs((ink[1] + ink[3]) / 2 - 200) <= 8 and abs((ink[0] + ink[2]) / 2 - 200) <= 12
        assert abs((ink[3] - ink[1]) - 0.3 * 400) <= 12


@given(st.floats(0, 1), st.floats(0, 1), st.floats(0, 1))
def test_a_region_of_waves_is_that_part_of_the_whole(x, y, phase):
    scene = sample_scene(np.random.default_rng(int(1000 * phase)), TEST)
    left, top = int(x * 128), int(y * 128)
    whole = np.asarray(draw(replace(scene, marks=(), strokes=()), 256), dtype=int)[top : top + 128, left : left + 128]
    region = (left / 256, top / 256, (left + 128) / 256, (top + 128) / 256)
    part = np.asarray(draw(replace(scene, marks=(), strokes=()), 128, region), dtype=int)
    assert np.abs(whole - part).max() <= 2 * (1 + len(scene.waves))  # each summand is cut to a whole number


@pytest.mark.parametrize(("large", "medium"), [(0.25, 0.0), (0.25, 0.25), (0.3, 0.7), (0.0, 1.0), (0.13, 0.47)])
def test_sizes_of_marks_take_their_shares(large, medium):
    categories = [question.category for question in Scenes(100, large=large, medium=medium)]
    for size, share in (("large", large), ("medium", medium)):
        assert abs(sum(category.endswith(size) for category in categories) - 100 * share) <= 2


def test_medium_marks_lie_between_small_and_large_ones():
    for split in ("train", "ood", "test"):
        small, medium, large = (STYLES[split][size].radius for size in ("small", "medium", "large"))
        assert small[1] < medium[0] and medium[1] < large[0]


def test_large_marks_can_be_read_at_the_cap_and_their_boxes_hold_them():
    rng = np.random.default_rng(0)
    for i in range(20):
        _, marks = sample_question(KINDS[i % 4], (7, 0, i), 256, "train", "large")
        for mark in marks:
            assert 2 * mark.radius * 112 >= 22  # a small mark has as many pixels in its crop
        x1, y1, x2, y2 = teacher_box(marks, 112, "good", rng)
        assert 0 <= x1 < x2 <= 112 and 0 <= y1 < y2 <= 112
        assert all(x1 <= mark.x * 112 <= x2 and y1 <= mark.y * 112 <= y2 for mark in marks)


@given(st.integers(-300, 300), st.integers(0, 2**32 - 1))
def test_a_slope_is_the_sum_of_its_rows_and_columns(shift, seed):
    """Whatever part of a sum is the row's, negative or more than a byte."""
    rng = np.random.default_rng(seed)
    down, across = rng.integers(0, 128, (3, 5)) + shift, rng.integers(0, 129, (3, 7)) - shift
    expected = np.moveaxis(down[:, :, None] + across[:, None], 0, -1)
    assert np.array_equal(np.asarray(_slope(down.astype(np.int16), across.astype(np.int16))), expected)


@pytest.mark.parametrize("shift", [0, -130, 130])
def test_grounds_are_cut_off_at_black_and_white(shift):
    """Bands that stay within a byte are drawn another way than those that do not."""
    scene = replace(sample_scene(np.random.default_rng(0)), strokes=(), marks=())
    corners = np.array(scene.corners)
    corners[:2] += shift
    left, right, top, bottom = corners[:, :, None]
    steps = np.linspace(0, 1, 64)
    across, down = (left + (right - left) * steps).astype(int), (top + (bottom - top) * steps).astype(int)
    sums = np.moveaxis(down[:, :, None] + across[:, None], 0, -1)
    assert (sums.min() >= 0 and sums.max() <= 255) == (shift == 0)
    found = draw(replace(scene, corners=tuple(map(tuple, corners.tolist()))), 64)
    assert np.array_equal(np.asarray(found), sums.clip(0, 255))
