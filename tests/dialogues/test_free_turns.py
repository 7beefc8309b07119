"""Free turns: as many looks as the policy wants, into whichever picture it names, up to a limit."""

import pytest

from mgpo.dialogues import FreeTurns
from mgpo.images.boxes import REASONS
from mgpo.images.views import View
from mgpo.types import Prompt, Reply, Turn
from tests.helpers.talks import CHOICES, RESOLUTION, say, start, text_of


def test_free_turns_may_answer_at_once():
    dialogue = FreeTurns(3)
    trajectory, messages = start(dialogue, CHOICES)
    assert "(A) seven" in text_of(messages)
    assert "look 2 times" in text_of(messages)
    say(trajectory, r"\boxed{B}")
    assert dialogue.proceed(trajectory, RESOLUTION) is None
    assert trajectory.answer == "B"
    assert not trajectory.crops
    assert not trajectory.limited


def test_free_turns_crop_a_crop_and_map_it_to_the_original():
    dialogue = FreeTurns(4)
    trajectory, _ = start(dialogue)
    say(trajectory, '[{"bbox_2d": [28, 28, 84, 84]}]', "marker")
    assert "look 2 times more" in text_of(dialogue.proceed(trajectory, RESOLUTION))
    assert trajectory.views[1].region == (112, 112, 336, 336)
    assert trajectory.views[1].size == (84, 84)
    say(trajectory, '[{"bbox_2d": [0, 0, 42, 42], "picture": 2}]', "marker")
    assert "look once more" in text_of(dialogue.proceed(trajectory, RESOLUTION))
    assert trajectory.views[2].region == (112, 112, 224, 224)
    say(trajectory, '[{"bbox_2d": [0, 0, 56, 56], "picture": 1}]', "marker")
    assert "may not look again" in text_of(dialogue.proceed(trajectory, RESOLUTION))
    assert trajectory.views[3].region == (0, 0, 224, 224)


@pytest.mark.parametrize("number", [0, 2, 999])
def test_a_picture_that_does_not_exist_is_refused_with_a_reason(number):
    dialogue = FreeTurns(3)
    trajectory, _ = start(dialogue)
    say(trajectory, f'[{{"bbox_2d": [0, 0, 56, 56], "picture": {number}}}]', "marker")
    assert "no picture of that number" in text_of(dialogue.proceed(trajectory, RESOLUTION))
    assert not trajectory.crops


def test_the_turn_limit_ends_an_episode_and_marks_it():
    dialogue = FreeTurns(2)
    trajectory, _ = start(dialogue)
    say(trajectory, "[0, 0, 56, 56]", "marker")
    dialogue.proceed(trajectory, RESOLUTION)
    say(trajectory, "[0, 0, 56, 56]", "marker")
    assert dialogue.proceed(trajectory, RESOLUTION) is None
    assert trajectory.limited and trajectory.unfinished
    assert trajectory.answer is None


def test_an_end_without_an_answer_is_no_limit():
    """A last reply that stops by itself with nothing in it is wrong, not cut short."""
    dialogue = FreeTurns(1)
    trajectory, _ = start(dialogue)
    say(trajectory, "I do not know.")
    assert dialogue.proceed(trajectory, RESOLUTION) is None
    assert not trajectory.unfinished
    trajectory.turns[0] = Turn(Prompt((1,)), Reply((2,), (0.0,), "length"), "I do")
    assert trajectory.unfinished
    say(trajectory, "I do not know.")
    assert not trajectory.unfinished  # only the last reply tells


def test_a_closed_box_block_is_a_look_even_where_it_speaks_of_an_answer():
    dialogue = FreeTurns(3)
    trajectory, _ = start(dialogue)
    say(trajectory, 'The answer is B if [{"bbox_2d": [0, 0, 56, 56]}]\n```', "marker")
    assert dialogue.proceed(trajectory, RESOLUTION) is not None
    assert trajectory.answer is None


def test_a_reply_with_neither_goes_on_with_text_alone():
    dialogue = FreeTurns(3)
    trajectory, _ = start(dialogue)
    say(trajectory, "I wonder.")
    (message,) = dialogue.proceed(trajectory, RESOLUTION)
    assert not any(isinstance(part, View) for part in message.parts)
    assert REASONS["no_box"] in text_of([message])


@pytest.mark.parametrize(
    "text",
    ["[28, 0, 84, 56]", "(28, 0, 84, 56)", "28, 0, 84, 56 [28, 0, 84, 56]", "<box>(28, 0), (84, 56)</box>",
     "<box>28, 0, 84, 56</box>", '{"bbox": [28, 0, 84, 56]}', '{"x1": 28, "y1": 0, "x2": 84, "y2": 56}',
     "xmin=28, ymin=0, xmax=84, ymax=56", "[[28, 0], [84, 56]]", "<|box_start|>(28,0),(84,56)<|box_end|>",
     "The sign is at [28, 0, 84, 56]."],
)  # fmt: skip
@pytest.mark.parametrize("choices", [(), CHOICES])
def test_a_box_alone_is_a_look_and_no_answer(text, choices):
    dialogue = FreeTurns(3)
    trajectory, _ = start(dialogue, choices)
    say(trajectory, text)
    assert dialogue.proceed(trajectory, RESOLUTION) is not None
    assert [view.region for view in trajectory.crops] == [(112, 0, 336, 224)]
