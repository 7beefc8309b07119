"""Texts of one's own: what they have to show is shown, and a misspelt slot is no text to train on."""

import pytest

from mgpo.dialogues import BlindAnswer, FreeTurns, SingleTurn, TwoTurn
from mgpo.errors import UserError
from mgpo.rollout import InProcessSampler, Sampling
from mgpo.rollout.episodes import roll_out
from mgpo.rollout.fitting import opening
from mgpo.types import Message, Trajectory
from tests.conftest import make_question, noise_image


@pytest.mark.parametrize(
    ("made", "said"),
    [
        (lambda: TwoTurn(ask_box="Where? {question}"),
         "dialogue.ask_box lacks the slot {image}; the policy would never see it"),
        (lambda: TwoTurn(ask_box="{image} Where?"), "ask_box lacks the slot {question}"),
        (lambda: TwoTurn(ask_box="{image}{qestion}"),
         "ask_box has {qestion}, which is no slot; did you mean {question}?"),
        (lambda: TwoTurn(show_region="{image}{question}"), "show_region lacks the slot {choices}"),
        (lambda: TwoTurn(show_whole="{question}"), "show_whole lacks the slot {choices}, which is empty where"),
        (lambda: TwoTurn(look_again="{question} again"), "look_again lacks the slot {image}"),
        (lambda: TwoTurn(name_again="{Image} Once more."), "name_again has {Image}, which is no slot"),
        (lambda: SingleTurn(ask="{image}{question}{choice}"),
         "ask has {choice}, which is no slot; did you mean {choices}?"),
        (lambda: SingleTurn(ask="{question}{choices}"), "ask lacks the slot {image}"),
        (lambda: FreeTurns(show="There it is."), "show lacks the slot {image}"),
        (lambda: FreeTurns(finish="{image} Now answer."), "finish has the slot {image}, but nothing fills it there"),
        (lambda: TwoTurn(ask_box="{image}{question}{reason}"), "ask_box has the slot {reason}, but nothing fills it"),
        (lambda: TwoTurn(show_whole="{choices} {looks}"), "show_whole has the slot {looks}"),
        (lambda: SingleTurn(ask="{image}{question}{choices}{looks}"), "ask has the slot {looks}"),
        (lambda: FreeTurns(ask="{image}{question}{choices}{reason}"), "ask has the slot {reason}"),
        (lambda: FreeTurns(go_on="{reason}"), "go_on has the slot {reason}"),
        (lambda: BlindAnswer(ask_answer="{image}{choices}"), "ask_answer lacks the slot {question}"),
        (lambda: BlindAnswer(refuse="{question}{choices}{image}"), "refuse has the slot {image}"),
    ],
)  # fmt: skip
def test_a_text_that_leaves_out_what_it_is_for_is_refused(made, said):
    with pytest.raises(UserError) as raised:
        made()
    assert said in str(raised.value)


def test_other_words_in_braces_are_words():
    for dialogue in (
        SingleTurn(ask='{image}{question}{choices} As {"x": 1}, {n} or \\boxed{images}, \\text{unit}, {{choice}}.'),
        TwoTurn(ask_box="{image}{question}{choices}", show_region="{image}", show_whole="{image}"),
    ):
        assert dialogue.stop_text(1) is None


QUESTION, IMAGE = make_question(noise_image(200, 100), "q7"), noise_image(200, 100)


class Blind(SingleTurn):
    def open(self, trajectory, resolution):
        return [Message("user", ("What is it?",))]


class Word(SingleTurn):
    def proceed(self, trajectory, resolution):
        return "Go on."


def test_a_dialogue_that_shows_nothing_or_says_no_messages_is_told_of(policy):
    def play(dialogue):
        roll_out(policy, InProcessSampler(), dialogue, [(QUESTION, IMAGE)], copies=1, sampling=Sampling(2), key=(0,))

    with pytest.raises(UserError, match=r"the dialogue Blind, at question q7, fails: .*no message with a picture"):
        play(Blind())
    with pytest.raises(UserError, match="the dialogue Blind, at question q7, fails"):
        opening(policy, Blind(), Trajectory(QUESTION, IMAGE))
    with pytest.raises(UserError, match=r"the dialogue Word, at question q7, .*messages is needed, not 'Go on\.'"):
        play(Word())
