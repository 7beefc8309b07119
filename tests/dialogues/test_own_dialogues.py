"""Dialogues of one's own: what they say and note is checked, and told with their name."""

import pytest

from mgpo.dialogues import SingleTurn, TwoTurn, see_whole
from mgpo.dialogues.asked import MOST_TURNS, next_of, opening_of, stop_of
from mgpo.errors import UserError
from mgpo.images import View
from mgpo.images.decoding import to_rgb
from mgpo.rollout import InProcessSampler, Sampling
from mgpo.rollout.episodes import roll_out
from mgpo.types import Message, Prompt, Reply, Trajectory, Turn
from tests.conftest import make_question, noise_image

IMAGE = to_rgb(noise_image(200, 100))


def begun(policy, replies=1):
    trajectory = Trajectory(make_question(IMAGE, "q7"), IMAGE)
    see_whole(trajectory, policy.resolution)
    reply = Reply((1,), (0.0,), "end")
    trajectory.turns += [Turn(Prompt((1,)), reply, "no") for _ in range(replies)]
    return trajectory


OPENED = {
    "gives no message with a picture": lambda view: [Message("user", ("no picture shown",))],
    "no message with a picture": lambda view: [Message("system", ("a",)), Message("user", ("b",))],
    "parts are a tuple of texts and views, not 'just text'": lambda view: [Message("user", "just text")],
    "parts are a tuple of texts and views, not View": lambda view: [Message("user", view)],
    r"parts are a tuple of texts and views, not \(3,\)": lambda view: [Message("user", (3,))],
    "role is one of system, user, assistant, not 'robot'": lambda view: [Message("robot", (view,))],
    r"a list of messages is needed, not \[\]": lambda view: [],
    "a list of messages is needed, not 'hello'": lambda view: "hello",
    "a view that is not in trajectory.views": lambda view: [Message("user", (View((0, 0, 9, 9), (28, 28)),))],
}


@pytest.mark.parametrize("said", OPENED)
def test_what_is_no_opening_is_told(policy, said):
    class Own(SingleTurn):
        def open(self, trajectory, resolution):
            return OPENED[said](see_whole(trajectory, resolution)[0])

    with pytest.raises(UserError, match=rf"the dialogue Own, at question q7, fails: .*{said}") as told:
        opening_of(Own(), Trajectory(make_question(IMAGE, "q7"), IMAGE), policy.resolution)
    assert "line" not in str(told.value)  # none of this package's


NOTED = {
    "turn.parsed_box has to be what find_box gives or None": lambda t: setattr(t.turns[-1], "parsed_box", (1, 2, 3, 4)),
    "turn.action has to be one of look, look refused, answer, nothing": lambda t: setattr(
        t.turns[-1], "action", "zoom"
    ),
    "trajectory.answer has to be a text or None, not 5": lambda t: setattr(t, "answer", 5),
}


@pytest.mark.parametrize("said", NOTED)
def test_what_nobody_can_read_is_not_noted(policy, said):
    class Own(TwoTurn):
        def proceed(self, trajectory, resolution):
            NOTED[said](trajectory)

    with pytest.raises(UserError, match=f"the dialogue Own, at question q7, fails: TypeError: {said}"):
        next_of(Own(), begun(policy), policy.resolution)


def test_an_episode_that_never_ends_is_ended(policy):
    class Endless(SingleTurn):
        def proceed(self, trajectory, resolution):
            return [Message("user", ("Go on.",))]

    assert next_of(Endless(), begun(policy, MOST_TURNS - 1), policy.resolution)
    said = "the dialogue Endless, at question q7, fails: .*goes on behind 100 replies; its proceed has to give None"
    with pytest.raises(UserError, match=said):
        next_of(Endless(), begun(policy, MOST_TURNS), policy.resolution)
    samples = [(make_question(IMAGE, "q7"), IMAGE)]
    with pytest.raises(UserError, match=said):
        roll_out(policy, InProcessSampler(), Endless(), samples, copies=1, sampling=Sampling(1), key=(0,))


def test_a_limit_of_its_own_may_be_higher(policy):
    class Long(SingleTurn):
        turns = MOST_TURNS + 20

        def proceed(self, trajectory, resolution):
            return [Message("user", ("Go on.",))] if len(trajectory.turns) < self.turns else None

    assert next_of(Long(), begun(policy, MOST_TURNS), policy.resolution)
    assert next_of(Long(), begun(policy, MOST_TURNS + 20), policy.resolution) is None


@pytest.mark.parametrize("given", [5, ["]"]])
def test_a_stop_text_is_a_text(policy, given):
    class Own(SingleTurn):
        def stop_text(self, turn):
            return given

    with pytest.raises(UserError, match=r"stop_text of the dialogue Own, asked for turn 0, fails: .*a text or None"):
        roll_out(policy, InProcessSampler(), Own(), [(make_question(IMAGE), IMAGE)], 1, Sampling(1), (0,))
    assert stop_of(TwoTurn(), 0) == "]\n```" and stop_of(TwoTurn(), 1) is None
