"""Thoughts are no replies, with and without their opening tag, in every dialogue."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mgpo.answers.thoughts import spoken
from mgpo.dialogues import FreeTurns, SingleTurn, TwoTurn
from mgpo.images.views import Frame, VisionResolution
from mgpo.policy.families.qwen_pixels import PixelBudget
from mgpo.rewards.shaping import Format
from mgpo.types import Prompt, Reply, Trajectory, Turn
from tests.conftest import make_question, noise_image

RESOLUTION = VisionResolution(Frame.PIXELS, PixelBudget(784, 112 * 112, 28), PixelBudget(784, 84 * 84, 28))
BOX = '```json\n[{"bbox_2d": [0, 0, 56, 56]}]\n```'
OTHER = '[{"bbox_2d": [28, 28, 112, 112]}]'


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("B", "B"),
        ("<think>maybe A</think>B", "B"),
        ("<think>maybe A</think>B<think>or A?</think>", "B"),
        ("maybe A</think>B", "B"),
        ("<think>maybe A", ""),
        ("B <think>or A", "B "),
        ("<think>a <think> in a thought</think>B", "B"),
        ("<think>a</think>A</think>B", "B"),
        ("<THINKING>\nmaybe A\n</Thinking>B", "B"),
        ("◁think▷maybe A◁/think▷B", "B"),
        ("[THINK]maybe A[/THINK]B", "B"),
        ("<seed:think>maybe A</seed:think>B", "B"),
        ("I think <it> is B", "I think <it> is B"),
    ],
)
def test_what_is_said(text, said):
    assert spoken(text) == said


@pytest.mark.parametrize(
    ("text", "said"), [("maybe A</think>B", "B"), ("maybe A", ""), ("a<think>b</think>B", "B"), ("", "")]
)
def test_a_reply_that_begins_inside_a_thought(text, said):
    assert spoken(text, opened=True) == said


@given(st.lists(st.sampled_from(["<think>", "</think>", "A", "\\boxed{", "[1, 2, 3, 4]", "\n"])), st.booleans())
def test_only_what_lies_outside_of_thoughts_is_said(pieces, opened):
    text = "".join(pieces)
    said = spoken(text, opened)
    assert "think>" not in said
    assert len(said) <= len(text)
    assert spoken(said) == said
    assert spoken(f"<think>{text.replace('</think>', '')}") == ""


def play(dialogue, *replies, opened=False):
    image = noise_image(448, 448)
    trajectory = Trajectory(make_question(image, choices=("red", "blue")), image)
    dialogue.open(trajectory, RESOLUTION)
    for text in replies:
        trajectory.turns.append(Turn(Prompt((1,)), Reply((2,), (0.0,), "end"), text, opened=opened))
        dialogue.proceed(trajectory, RESOLUTION)
    return trajectory


@pytest.mark.parametrize("dialogue", [TwoTurn(), FreeTurns(), SingleTurn()])
def test_a_box_in_a_thought_is_none(dialogue):
    assert play(dialogue, f"<think>{OTHER}</think>{BOX}").parsed_box.box == (0, 0, 56, 56)
    assert play(dialogue, f"{OTHER}</think>{BOX}").parsed_box.box == (0, 0, 56, 56)
    assert play(dialogue, f"<think>{BOX}").parsed_box.reason == "no_box"
    assert play(dialogue, BOX, opened=True).parsed_box.reason == "no_box"
    assert play(dialogue, f"{OTHER}</think>{BOX}", opened=True).parsed_box.box == (0, 0, 56, 56)


@pytest.mark.parametrize("dialogue", [TwoTurn(), FreeTurns(), SingleTurn()])
def test_an_answer_in_a_thought_is_none(dialogue):
    looks = [f"</think>{BOX}"] if isinstance(dialogue, TwoTurn) else []
    for opened in (False, True):
        assert play(dialogue, *looks, r"\boxed{A}</think>\boxed{B}", opened=opened).answer == "B"
        assert play(dialogue, *looks, r"\boxed{A}</think>I can't see it.", opened=opened).answer is None
    assert play(dialogue, *looks, r"<think>\boxed{A}").answer is None
    assert play(dialogue, *looks, r"\boxed{A}", opened=True).answer is None


def test_the_picture_that_a_thought_speaks_of_is_not_named():
    trajectory = play(FreeTurns(), f'<think>"picture": 7</think>{BOX}')
    assert len(trajectory.crops) == 1


def test_form_is_judged_in_what_is_said():
    played = play(TwoTurn(), BOX, r"<think>\boxed{A}, no: \boxed{B}</think>\boxed{B}")
    assert Format(0.5)(played) == 0.5
    assert Format(0.5)(play(TwoTurn(), f"<think>{BOX}", r"\boxed{B}")) == 0
