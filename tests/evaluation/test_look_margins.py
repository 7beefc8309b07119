"""What each of several looks adds: to one that showed all there was, nothing."""

from dataclasses import replace

import pytest
import torch
from PIL import Image

from mgpo.data import Scenes
from mgpo.dialogues import FreeTurns, TwoTurn
from mgpo.evaluation.evidence import look_margins
from mgpo.policy import Qwen25VL
from mgpo.rollout.episodes import ANSWER_FORM, roll_out
from mgpo.rollout.in_process import InProcessSampler, Sampling
from mgpo.types import Message, Prompt
from mgpo.world.model import CAPS
from mgpo.world.questions import KINDS
from tests.evaluation.test_evidence import likelihoods


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


def all_black(policy, trajectory):
    """With black, of as many patches of 14 pixels, for every picture that the first prompt does not show."""
    first, *rest = trajectory.turns
    turns = [first]
    for turn in rest:
        sizes = [tuple(14 * side for side in image.grid[:0:-1]) for image in turn.prompt.images]
        images = [policy.pixels(Image.new("RGB", size)) for size in sizes]
        images = [i if i in first.prompt.images else new for i, new in zip(turn.prompt.images, images)]
        turns.append(replace(turn, prompt=replace(turn.prompt, images=tuple(images))))
    return replace(trajectory, turns=turns)


@pytest.mark.parametrize("dialogue", [TwoTurn(), TwoTurn(turns=3), FreeTurns(turns=3)], ids=["two", "three", "free"])
def test_what_looks_add_is_the_evidence_of_all(base, play, dialogue):
    """How much likelier the crops make the right answer than black ones, one trajectory a pass."""
    trajectories = play(dialogue)
    margins = look_margins(base, trajectories, ANSWER_FORM, micro_batch_tokens=600)
    assert [len(of) for of in margins] == [len(t.turns) - 1 for t in trajectories]
    expected = likelihoods(base, trajectories) - likelihoods(base, [all_black(base, t) for t in trajectories])
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
    expected = (likelihoods(base, [alone]) - likelihoods(base, [all_black(base, alone)])).item()
    assert look_margins(base, [trajectory], ANSWER_FORM)[0][0] == pytest.approx(expected, abs=1e-3)


def test_a_look_that_is_shown_what_was_seen_before_adds_nothing(base, play):
    """A cut that gives the whole picture, or the part before, so that nothing was cut out."""

    def again(view, box, resolution):
        return view

    for dialogue in (TwoTurn(cut=again), FreeTurns(turns=3, cut=again)):
        trajectories = play(dialogue)
        assert any(turn.action == "look" for t in trajectories for turn in t.turns)
        margins = look_margins(base, trajectories, ANSWER_FORM)
        assert [len(of) for of in margins] == [len(t.turns) - 1 for t in trajectories]
        assert not any(margin for of in margins for margin in of)


class Beside(TwoTurn):
    """Shows the whole picture once more, in front of the part."""

    def proceed(self, trajectory, resolution):
        messages = super().proceed(trajectory, resolution)
        if trajectory.turns[-1].action != "look":
            return messages
        return [Message("user", (trajectory.wholes[0], *messages[0].parts))]


def test_a_whole_picture_beside_the_crop_stays(base, play):
    trajectories = [t for t in play(Beside()) if t.crops]
    assert all(len(t.turns[1].prompt.images) == 2 for t in trajectories)
    expected = likelihoods(base, trajectories) - likelihoods(base, [all_black(base, t) for t in trajectories])
    margins = look_margins(base, trajectories, ANSWER_FORM)
    torch.testing.assert_close(torch.tensor(margins)[:, 0], expected, atol=1e-3, rtol=1e-4)


@pytest.mark.parametrize("dialogue", [TwoTurn(), Beside()], ids=["two", "beside"])
def test_crops_alone_are_worth_what_they_show_without_the_picture(base, play, dialogue):
    """Wherever the picture is shown, it is black on both sides; nobody's rollouts change."""
    trajectories = [t for t in play(dialogue) if t.crops]
    pictures = [[image for turn in t.turns for image in turn.prompt.images] for t in trajectories]
    hidden = []
    for trajectory in trajectories:
        first = trajectory.turns[0].prompt.images[0]
        black = base.pixels(Image.new("RGB", trajectory.views[0].size))
        prompts = [tuple(black if image is first else image for image in t.prompt.images) for t in trajectory.turns]
        turns = [replace(t, prompt=replace(t.prompt, images=images)) for t, images in zip(trajectory.turns, prompts)]
        hidden.append(replace(trajectory, turns=turns))
    expected = likelihoods(base, hidden) - likelihoods(base, [all_black(base, t) for t in hidden])
    margins = look_margins(base, trajectories, ANSWER_FORM, crops_alone=True)
    torch.testing.assert_close(torch.tensor(margins)[:, 0], expected, atol=1e-3, rtol=1e-4)
    assert not torch.allclose(expected, torch.tensor(look_margins(base, trajectories, ANSWER_FORM))[:, 0], atol=1e-2)
    assert pictures == [[image for turn in t.turns for image in turn.prompt.images] for t in trajectories]


def test_a_crop_alone_is_worth_more_where_the_picture_can_be_read_too(base):
    """There the answer hardly needs the crop, and yet that shows it."""
    questions = Scenes(6, KINDS[:1], "val", side=640, large=1.0)
    samples = [(question, question.picture.load()) for question in (questions[i] for i in range(6))]
    played = roll_out(base, InProcessSampler(), TwoTurn(), samples, 4, Sampling(max_new_tokens=32), (0, 0))
    looked = [t for t in played if t.crops]
    with_picture, alone = (
        torch.tensor(look_margins(base, looked, ANSWER_FORM, crops_alone=crops_alone)).clamp(min=0).mean()
        for crops_alone in (False, True)
    )
    assert alone > with_picture + 1
