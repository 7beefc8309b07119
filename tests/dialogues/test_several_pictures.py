"""Questions with several pictures: how the policy is told of them, and which one a box is in."""

import hashlib
import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mgpo.dialogues import FreeTurns, SingleTurn, TwoTurn, answer_only
from mgpo.dialogues.base import WHICH
from mgpo.images.boxes import REASONS, box_candidates, numbered_boxes, parse_box
from mgpo.images.views import Frame, View, VisionResolution
from mgpo.metrics.record import record_of
from mgpo.policy.families.qwen_pixels import PixelBudget
from mgpo.types import Prompt, Reply, Trajectory, Turn
from tests.conftest import MemoryPicture, make_question, noise_image

RESOLUTION = VisionResolution(Frame.PIXELS, PixelBudget(784, 112 * 112, 28), PixelBudget(784, 84 * 84, 28))
IMAGES = noise_image(448, 448, 1), noise_image(896, 448, 2)  # seen at 112 x 112 and at 140 x 56
BOX = '```json\n[{"bbox_2d": [28, 0, 84, 56], "label": "it"}]\n```'
SECOND = BOX.replace("}]", ', "picture": 2}]')
THIRD = BOX.replace("}]", ', "picture": 3}]')
ANSWER = r"\boxed{A}"
# What one picture has been asked about with ever since; the weights of trained models know these words.
ONE_PICTURE = "df6c1314fad1f63db28bd0cd6788261110bae7d7dcd257d59588af7681553bcf"


def start(dialogue, images=IMAGES, frame=Frame.PIXELS):
    question = make_question(images[0], choices=("red", "blue"))
    question = replace(question, others=tuple(map(MemoryPicture, images[1:])))
    trajectory = Trajectory.begin(question, *images)
    return trajectory, dialogue.open(trajectory, replace(RESOLUTION, frame=frame))


def say(dialogue, trajectory, text, frame=Frame.PIXELS):
    trajectory.turns.append(Turn(Prompt((1,)), Reply((2,), (0.0,), "end"), text))
    return dialogue.proceed(trajectory, replace(RESOLUTION, frame=frame))


def parts_of(messages):
    return [part for message in messages for part in message.parts]


def text_of(messages):
    return "".join(part if isinstance(part, str) else "[]" for part in parts_of(messages))


def told(dialogue, frame, replies):
    """All that is said and shown of one picture."""
    trajectory, messages = start(dialogue, [noise_image(448, 448)], frame)
    said = []
    for text in replies:
        said += [(m.role, [p if isinstance(p, str) else (p.region, p.size, p.turn) for p in m.parts]) for m in messages]
        messages = say(dialogue, trajectory, text, frame)
        if messages is None:
            break
    return said


def test_every_prompt_about_one_picture_is_what_it_was():
    wide = '[{"bbox_2d": [0, 0, 84, 56], "picture": 2}]'
    scripts = [
        (TwoTurn(), [BOX, ANSWER]), (TwoTurn(), ["nothing", ANSWER]),
        (TwoTurn(turns=4), ["[56, 56, 0, 0]", BOX, "nothing", ANSWER]), (SingleTurn(), [BOX]),
        (answer_only(), [ANSWER]),
        (FreeTurns(5), [BOX, wide, "[56, 56, 0, 0]", "nothing", ANSWER]),
    ]  # fmt: skip
    said = [told(dialogue, frame, replies) for frame in Frame for dialogue, replies in scripts]
    assert hashlib.sha256(repr(said).encode()).hexdigest() == ONE_PICTURE


@pytest.mark.parametrize("dialogue", [TwoTurn(), SingleTurn(), FreeTurns(), answer_only()])
def test_the_first_turn_shows_all_pictures_by_number(dialogue):
    trajectory, messages = start(dialogue)
    assert [view for view in parts_of(messages) if isinstance(view, View)] == trajectory.views
    assert [(view.picture, view.region) for view in trajectory.views] == [(0, (0, 0, 448, 448)), (1, (0, 0, 896, 448))]
    assert "Picture 1: []\nPicture 2: []\nWhich letter stands on the red mark?" in text_of(messages)
    assert (WHICH.strip() in text_of(messages)) == (getattr(dialogue, "judge_box", True))


@pytest.mark.parametrize(("reply", "picture", "region"), [
    (BOX, 0, (112, 0, 336, 224)), (SECOND, 1, (179, 0, 538, 448)),
])  # fmt: skip
@pytest.mark.parametrize("dialogue", [TwoTurn(), FreeTurns()])
def test_a_box_is_cut_from_the_picture_that_it_names(dialogue, reply, picture, region):
    trajectory, _ = start(dialogue)
    (view,) = [part for part in parts_of(say(dialogue, trajectory, reply)) if isinstance(part, View)]
    assert (view.picture, view.region) == (picture, region)
    assert trajectory.crops == [view]
    assert view.cut(trajectory.original(view)).tobytes() == IMAGES[picture].crop(region).tobytes()
    assert trajectory.turns[0].picture == picture + 1
    record = record_of(trajectory)
    assert (record.named_in, record.cut_from) == ((picture + 1,), (picture + 1,))
    shares = (region[2] - region[0]) * (region[3] - region[1]) / (IMAGES[picture].width * IMAGES[picture].height)
    assert record.area == shares and record.zoom > 1
    assert record.box == trajectory.whole(view).to_original((28, 0, 84, 56))


def test_a_box_is_judged_by_the_size_of_its_own_picture():
    wide = '[{"bbox_2d": [0, 0, 130, 50]%s}]'
    for reply, reason in [(wide % "", "outside"), (wide % ', "picture": 2', None)]:
        dialogue = SingleTurn()
        trajectory, _ = start(dialogue)
        say(dialogue, trajectory, reply)
        assert trajectory.parsed_box.reason == reason


def test_a_number_that_is_not_there_shows_a_whole_picture_and_says_why():
    dialogue = TwoTurn()
    trajectory, _ = start(dialogue)
    messages = say(dialogue, trajectory, THIRD)
    assert REASONS["no_picture"] in text_of(messages)
    assert trajectory.views[-1] is trajectory.views[0] and not trajectory.crops
    assert trajectory.turns[0].named is None and record_of(trajectory).named_in == (None,)


def test_an_unusable_box_shows_its_own_picture_again():
    dialogue = TwoTurn()
    trajectory, _ = start(dialogue)
    say(dialogue, trajectory, '[{"bbox_2d": [56, 56, 0, 0], "picture": 2}]')
    assert trajectory.views[-1] is trajectory.views[1] and trajectory.crops == []
    assert trajectory.turns[0].action == "look refused"


def test_more_turns_name_any_of_the_first_pictures_and_fall_back_on_the_last_part():
    dialogue = TwoTurn(turns=4)
    trajectory, _ = start(dialogue)
    assert text_of(say(dialogue, trajectory, THIRD)).endswith(WHICH)
    assert text_of(say(dialogue, trajectory, SECOND)).endswith(WHICH)
    assert not text_of(say(dialogue, trajectory, THIRD)).endswith(WHICH)
    assert trajectory.views[-1] is trajectory.crops[-1] and [view.picture for view in trajectory.crops] == [1]


def test_free_turns_count_parts_behind_the_pictures():
    dialogue = FreeTurns(4)
    trajectory, _ = start(dialogue)
    say(dialogue, trajectory, SECOND)
    say(dialogue, trajectory, '[{"bbox_2d": [0, 0, 40, 40], "picture": 3}]')
    first, second = trajectory.crops
    assert (second.picture, second.region) == (1, first.crop((0, 0, 40, 40), RESOLUTION.crop).region)
    assert text_of(say(dialogue, trajectory, '[{"bbox_2d": [0, 0, 40, 40], "picture": 5}]')).startswith("No part")


def numbers(text):
    return [number for _, number in numbered_boxes(text)]


@pytest.mark.parametrize(("text", "found"), [
    ('[{"bbox_2d": [1, 2, 3, 4], "picture": 2}]', [2]), ('[{"picture": 2, "bbox_2d": [1, 2, 3, 4]}]', [2]),
    ('[{"bbox_2d": [1, 2, 3, 4], "picture": "2"}]', [2]), ("[{'bbox_2d': [1, 2, 3, 4], 'picture': 2}]", [2]),
    ('[{"bbox_2d": [1, 2, 3, 4], "picture" : 2', [2]), ('"picture": 2, "bbox_2d": [1, 2, 3, 4]', [2]),
    ('{"picture": 2, "boxes": [{"bbox_2d": [1, 2, 3, 4]}]}', [2]),
    ('[{"bbox_2d": [1, 2, 3, 4]}, {"bbox_2d": [5, 6, 7, 8], "picture": 2}]', [1, 2]),
    ('[{"bbox_2d": [1, 2, 3, 4], "picture": 3}, {"bbox_2d": [5, 6, 7, 8], "picture": 2}]', [3, 2]),
    ('[{"bbox_2d": [1, 2, 3, 4], "label": "a } of {", "picture": 2}]', [2]),
    ('[{"bbox_2d": [1, 2, 3, 4], "label": "see \\"picture\\": 3 { ", "picture": 2}]', [2]),
    ('the 5" sign: {"bbox_2d": [1, 2, 3, 4], "picture": 2}', [2]),
    ('[{"bbox_2d": [1, 2, 3, 4], "picture": null}]', [1]),
    ('[{"bbox_2d": [1, 2, 3, 4], "picture": 0}]', [0]), ('[{"bbox_2d": [1, 2, 3, 4], "picture": -1}]', [-1]),
    ('[{"bbox_2d": {"x1": 1, "y1": 2, "x2": 3, "y2": 4}, "picture": 2}]', [2]), ("[1, 2, 3, 4]", [1]),
])  # fmt: skip
def test_the_number_is_that_of_the_boxs_own_object(text, found):
    assert numbers(text) == found


@given(st.integers(1, 99), st.integers(1, 99), st.text(max_size=30), st.sampled_from(["", " ", "\n  "]))
def test_any_number_is_read_back_beside_any_label(first, second, label, space):
    boxes = [{"bbox_2d": [1, 2, 30, 40], "picture": first, "label": label}, {"bbox_2d": [5, 6, 70, 80], "label": "b"}]
    boxes[1]["picture"] = second
    text = json.dumps(boxes, indent=2 if space else None, separators=(f",{space}", f":{space}"))
    assert numbers(text)[:1] == [first]
    if not any(sign in label for sign in "0123456789[]()<"):
        assert numbers(text) == [first, second]


PIECES = [
    "{", "}", "[", "]", '"picture": 2', '"picture":', "9" * 30, "[1, 2, 3, 4]", '"', "\\", ': "', "bbox_2d", ",",
    "-", "\n",
]  # fmt: skip


@given(st.lists(st.sampled_from(PIECES), max_size=60), st.integers(1, 40))
def test_whatever_is_written_finds_a_picture_that_is_there_or_says_why_not(pieces, times):
    text = "".join(pieces) * times
    assert [box for box, _ in numbered_boxes(text)] == box_candidates(text)
    parsed_box = parse_box(text, (112, 112), others=[(140, 56)])
    assert (parsed_box.box is None) == (parsed_box.reason is not None)
    assert parsed_box.picture in (0, 1)


@pytest.mark.parametrize("text", [
    '{"picture": 2' * 20_000, "{" * 100_000 + "[1, 2, 3, 4]", '{"picture": 2, "bbox_2d": [1, 2, 3, 4]}' * 20_000,
    ': "' * 60_000, ': "' + "\\" * 100_000,
])  # fmt: skip
def test_floods_are_read_as_far_as_others(text):
    assert parse_box(text, (112, 112)).box is None
