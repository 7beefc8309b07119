"""What each of several looks adds: to one that showed all there was, nothing."""

from dataclasses import replace

import pytest
import torch
from PIL import Image

from mgpo.data import Scenes
from mgpo.dialogues import FreeTurns, TwoTurn
from mgpo.evaluation.evidence import evidence_margins, look_margins
from mgpo.policy import Qwen25VL
from mgpo.rollout.episodes import roll_out
from mgpo.rollout.in_process import InProcessSampler, Sampling
from mgpo.training.module import ANSWER_FORM
from mgpo.types import Prompt
from mgpo.world.model import CAPS
from mgpo.world.questions import KINDS


@pytest.fixture(scope="module")
def base():
    return Qwen25VL(**CAPS).load().eval()


@pytest.fixture(scope="module")
def play(base):
    questions = Scenes(4, KINDS, "val", side=640)
    samples = [(question, question.picture.load()) for question in (questions[i] for i in range(4))]

    def play(dialogue, copies=4):
        return roll_out(base, InProcessSampler(), dialogue, samples, copies, Sampling(max_new_tokens=32), (0, 0))

    return play


@pytest.mark.parametrize("dialogue", [TwoTurn(), TwoTurn(turns=3), FreeTurns(turns=3)], ids=["two", "three", "free"])
def test_what_looks_add_is_the_evidence_of_all(base, play, dialogue):
    trajectories = play(dialogue)
    margins = look_margins(base, trajectories, ANSWER_FORM, micro_batch_tokens=600)
    assert [len(of) for of in margins] == [len(t.turns) - 1 for t in trajectories]
    expected = evidence_margins(base, trajectories, ANSWER_FORM)
    torch.testing.assert_close(torch.tensor([sum(of) for of in margins]), expected, atol=1e-3, rtol=1e-4)
    assert any(abs(margin) > 1 for of in margins for margin in of)


def test_a_look_that_was_refused_adds_nothing(base, play):
    trajectories = play(TwoTurn(turns=3))
    refused = [
        margin
        for t, of in zip(trajectories, look_margins(base, trajectories, ANSWER_FORM))
        for turn, margin in zip(t.turns, of)
        if turn.action != "look"
    ]
    assert refused and not any(refused)


def test_the_first_look_gets_what_it_shows_while_the_second_is_black(base, play):
    trajectory = next(t for t in play(TwoTurn(turns=3)) if len(t.crops) == 2)
    first, second, answer = trajectory.turns
    black = base.pixels(Image.new("RGB", trajectory.crops[1].size))
    alone = replace(trajectory, turns=[first, second, replace(answer, prompt=Prompt(answer.prompt.ids, (black,)))])
    expected = evidence_margins(base, [alone], ANSWER_FORM).item()
    assert look_margins(base, [trajectory], ANSWER_FORM)[0][0] == pytest.approx(expected, abs=1e-3)
