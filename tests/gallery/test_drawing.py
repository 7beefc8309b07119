"""Pictures of looks: frames lie where boxes are, and below each picture stands what its lines mean."""

import json
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageSequence

from mgpo.dialogues import TwoTurn
from mgpo.gallery.data import Gallery, crop_key, region_key, shown_picture, snapshot
from mgpo.gallery.drawing import (
    BAD,
    CAPTION,
    GAP,
    GOOD,
    PLAIN,
    Key,
    drawn,
    explained,
    framed,
    look,
    overlay,
    steps,
)
from mgpo.gallery.page import read_page, write_page
from mgpo.images.boxes import IN_WORDS
from tests.conftest import make_question, noise_image
from tests.helpers.gallery_samples import make_trajectory, plain_trajectory
from tests.helpers.readme_film import film

USABLE, FLAT, OUTSIDE = (10, 10, 40, 40), (10, 50, 60, 53), (70, 70, 190, 100)


@pytest.fixture
def image():
    return Image.new("RGB", (400, 400), "white")


def trajectory_of(image, box, answer="K"):
    return make_trajectory(make_question(image), image, box, answer)


def count(picture, colour):
    """Pixels of a colour."""
    return int((np.asarray(picture.convert("RGB")) == colour).all(-1).sum())


def parts(picture, height):
    """What is above a height, and below it."""
    box = picture.width, picture.height
    return picture.crop((0, 0, box[0], height)), picture.crop((0, height, *box))


def test_frames_lie_where_the_box_is():
    picture = noise_image(400, 200)
    plain, drawn = np.asarray(framed(picture, [])), np.asarray(framed(picture, [(100, 50, 300, 150)]))
    y, x = np.nonzero((plain != drawn).any(-1))
    assert (x.min(), x.max(), y.min(), y.max()) == (80, 240, 40, 120)


@pytest.mark.parametrize("box", [(1e9, -1e9, -1e9, 1e9), (-500, -500, -400, -400), (900, 10, 950, 20)])
@pytest.mark.parametrize("dashed", [False, True])
def test_what_of_a_box_lies_outside_is_drawn_along_the_edge(image, box, dashed):
    drawn = framed(image, [box], side=100, dashed=[dashed])
    assert drawn.size == (100, 100) and count(drawn, PLAIN) > 0


def test_a_box_that_cant_be_used_is_dashed(image):
    usable, refused = (look(trajectory_of(image, box), side=112) for box in ((10, 10, 60, 60), (10, 10, 60, 14)))
    top = [count(picture.crop((12, CAPTION + 10, 60, CAPTION + 11)), PLAIN) for picture in (usable, refused)]
    assert top[0] == 48 and 16 <= top[1] <= 32


def test_a_look_says_what_its_lines_mean(image):
    usable = look(trajectory_of(image, USABLE), side=160)
    assert usable.width == 3 * 160 + 2 * GAP and usable.height > 160 + CAPTION
    for trajectory in (trajectory_of(image, USABLE), trajectory_of(image, FLAT), trajectory_of(image, OUTSIDE)):
        shown, below = parts(look(trajectory, side=160), 160 + CAPTION)
        assert count(shown, PLAIN) and count(below, PLAIN)


def test_a_look_says_why_there_is_no_line(image):
    nowhere, unasked = trajectory_of(image, None), plain_trajectory(make_question(image), image, "K")
    for trajectory in (nowhere, unasked):
        shown, below = parts(look(trajectory), 320 + CAPTION)
        assert not count(shown, PLAIN) and not count(below, PLAIN)
        assert count(below, (0, 0, 0)) > 50
    assert look(nowhere).tobytes() != look(unasked).tobytes()


def test_a_look_tells_reasons_apart(image):
    below = {parts(look(trajectory_of(image, box)), 320 + CAPTION)[1].tobytes() for box in (FLAT, OUTSIDE, None)}
    assert len(below) == 3


def test_every_colour_of_a_group_is_explained_below_it(image):
    group = [trajectory_of(image, *named) for named in ((USABLE, "K"), (FLAT, "X"), (OUTSIDE, "K"), (None, "X"))]
    assert {trajectory.right for trajectory in group} == {True, False}
    picture = overlay(group)
    shown, below = parts(picture, 320)
    assert picture.width == 320
    for colour in (GOOD, BAD):
        assert count(shown, colour) and count(below, colour)
    assert not count(below, PLAIN)


@pytest.fixture
def page(image, tmp_path):
    gallery = Gallery()
    questions = [make_question(image, name) for name in ("first", "second")]
    for step in (0, 4):
        group = [make_trajectory(q, image, box, a) for q in questions for box, a in ((USABLE, "K"), (FLAT, "X"))]
        gallery.add(step, group, 2)
    write_page(tmp_path / "page.html", gallery, "a run")
    return read_page(tmp_path / "page.html")


def test_steps_and_films_are_explained_too(page, tmp_path):
    shown, below = parts(steps(page, side=180), 180 + CAPTION)
    assert count(shown, GOOD) and count(shown, BAD) and count(below, GOOD) and count(below, BAD)
    film(page, tmp_path / "film.gif", [0, 1], side=100)
    with Image.open(tmp_path / "film.gif") as moving:
        assert (moving.n_frames, moving.width) == (2, 2 * 100 + GAP)
        frame = np.asarray(moving.convert("RGB"), int)[-3 * CAPTION :]
    for colour in (GOOD, BAD):
        assert (np.abs(frame - colour).max(-1) <= 4).any()


MARKS = [(215, 30, 35), (250, 140, 20), (245, 230, 40), (25, 150, 50), (50, 215, 225), (35, 60, 215), (140, 40, 170)]


def scene(seed, side=240):
    """Small marks of all colours on a ground that changes over x and y, as in a scene."""
    y, x = np.mgrid[:side, :side] / side
    rng = np.random.default_rng(seed)
    corners = rng.integers(60, 170, (3, 3))
    ground = corners[0] + x[..., None] * (corners[1] - corners[0]) + y[..., None] * (corners[2] - corners[0])
    picture = Image.fromarray((ground + rng.normal(0, 8, ground.shape)).clip(0, 255).astype(np.uint8))
    draw = ImageDraw.Draw(picture)
    for place, colour in enumerate(MARKS):
        draw.ellipse((32 * place + 7, 21, 32 * place + 17, 31), fill=colour)
    return picture


def test_colours_of_a_film_are_those_of_the_pictures_in_every_frame(tmp_path):
    """Questions ask for colours of marks: those may not change, though most of the 256 are the background's."""
    gallery, scenes = Gallery(), [scene(seed) for seed in range(4)]
    questions = [make_question(picture, f"q{i}") for i, picture in enumerate(scenes)]
    for step, box in enumerate([(10, 60, 90, 140), (60, 60, 140, 140), None]):
        gallery.add(step, [make_trajectory(q, q.picture.image, box, "K") for q in questions], 1)
    write_page(tmp_path / "page.html", gallery, "a run")
    page = read_page(tmp_path / "page.html")
    shown = np.asarray(steps(page, side=240), int)[CAPTION + 26]
    film(page, tmp_path / "film.gif", range(4), side=240)
    with Image.open(tmp_path / "film.gif") as moving:
        frames = [np.asarray(frame.convert("RGB"), int)[CAPTION + 26] for frame in ImageSequence.Iterator(moving)]
    assert len(frames) == 3
    places = [column * (240 + GAP) + 32 * place + 12 for column in range(4) for place in range(len(MARKS))]
    for frame in frames:
        assert (frame[places] == frames[0][places]).all()
        first = places[: len(MARKS)]
        assert np.abs(frame[first] - shown[first]).max() <= 8


def test_a_group_of_a_page_is_dashed_where_its_box_cant_be_used(page):
    """As in the page itself, by the reason of the turn in which it was named."""
    everywhere = json.loads(json.dumps(page))
    for question in everywhere["questions"]:
        for rollout in (rollout for group in question["steps"].values() for rollout in group):
            rollout["reasons"] = [None for _ in rollout["reasons"]]
    solid, dashed = (steps(each, side=180) for each in (everywhere, page))
    assert count(solid, GOOD) == count(dashed, GOOD) and count(solid, BAD) > count(dashed, BAD)


@pytest.mark.parametrize("width", [40, 180, 320, 984])
@pytest.mark.parametrize("reason", [*IN_WORDS.values(), "x" * 300])
def test_words_of_a_legend_stay_inside(width, reason):
    keys = [Key(f"dashed: unusable box, {reason}", BAD, dashed=True), Key("right", GOOD), Key("no box")]
    sheet = np.asarray(explained(Image.new("RGB", (width, 50)), keys))[50:]
    assert sheet.shape[1] == width
    if width > 100:
        assert (sheet[:, -1] == 255).all() and (sheet[-1] == 255).all()


def test_boxes_of_several_turns_have_a_line_each(image):
    first = trajectory_of(image, USABLE)
    second = replace(trajectory_of(image, FLAT).turns[0])
    first.turns.insert(1, second)
    alone = look(trajectory_of(image, USABLE), side=160)
    both = look(first, side=160)
    assert both.height >= alone.height and count(both, PLAIN) > count(alone, PLAIN)


def test_of_several_pictures_that_is_drawn_which_a_box_is_in():
    from tests.dialogues.test_several_pictures import ANSWER, SECOND, say, start

    dialogue = TwoTurn()
    trajectory, _ = start(dialogue)
    for text in (SECOND, ANSWER):
        say(dialogue, trajectory, text)
    (entry,) = json.loads(json.dumps(snapshot([trajectory], 1)))
    key = region_key(trajectory.crops[0].region, 2)
    assert set(entry["images"]) == {"picture", "picture 2", key} and crop_key(entry["rollouts"][0]) == key
    assert shown_picture(entry, entry["rollouts"]) == (2, [896, 448])
    assert drawn(entry, entry["rollouts"], 320).size == (320, 160)
    assert shown_picture(entry, []) == (1, [448, 448])
    assert look(trajectory).size[0] > overlay([trajectory]).size[0] == 320
