"""What rewards, shapings and dialogues of one's own may give, what is said where they fail, and rewards of rewards."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from mgpo.dialogues import SingleTurn
from mgpo.errors import UserError
from mgpo.images.decoding import to_rgb
from mgpo.rewards import BySource, ExactAnswer, Verdict, verdict_of
from mgpo.rewards.correctness import counts_of, verdicts_of
from mgpo.rollout import InProcessSampler, Sampling
from mgpo.rollout.episodes import roll_out, shape_rewards
from mgpo.types import Trajectory
from tests.conftest import make_question, noise_image

IMAGE = noise_image(200, 100)


def raising():
    def broken(answer, question):
        return int(answer)

    class Batch:
        def __call__(self, answer, question):
            return 0.0

        def judge_all(self, answers):
            return [int(answer) for answer, _ in answers]

    return broken, Batch()


def test_a_reward_that_raises_is_told_with_its_question_and_line():
    question = make_question(noise_image(8, 8), "q7")
    for reward in raising():
        with pytest.raises(UserError, match=r"^[^\n]*ValueError: .*'seven'.*verdicts.py, line \d+\)$") as raised:
            verdict_of(reward, "seven", question)
        assert getattr(reward, "__name__", "Batch") in str(raised.value)
    with pytest.raises(UserError, match="the reward broken, asked about question q7, fails: "):
        verdict_of(raising()[0], "seven", question)


def test_so_are_shapings_and_dialogues(policy):
    def costly(trajectory):
        return 1 / len(trajectory.turns)

    class Stuck(SingleTurn):
        def proceed(self, trajectory, resolution):
            raise KeyError("box")

    question = make_question(IMAGE, "q7")
    with pytest.raises(UserError, match=r"the shaping costly, asked about question q7, fails: ZeroDivisionError"):
        shape_rewards([Trajectory(question, IMAGE)], [costly])
    samples = [(question, to_rgb(IMAGE))]
    with pytest.raises(
        UserError, match=r"the dialogue Stuck, at question q7, fails: KeyError: 'box' \(.*test_own_verdicts"
    ):
        roll_out(policy, InProcessSampler(), Stuck(), samples, copies=1, sampling=Sampling(2), key=(0,))


@pytest.mark.parametrize("given", [np.array([1.0, 2.0]), torch.ones(2), torch.ones(0), (1.0,), {"r": 1}, "1", None])
def test_what_is_not_one_number_is_no_reward(given):
    question = make_question(IMAGE, "q7")
    for said in (given, Verdict(given, right=True), Verdict(1.0, right=np.array([True, False]))):  # pyright: ignore
        with pytest.raises(UserError, match=r"the reward <lambda> gives .* for question q7; it should return a number"):
            verdict_of(lambda answer, question, said=said: said, "K", question)
    with pytest.raises(
        UserError, match=r"the shaping .*, asked about question q7, fails: TypeError: a number is needed"
    ):
        shape_rewards([Trajectory(question, IMAGE)], [lambda trajectory: given])


@pytest.mark.parametrize(
    "given",
    [2, np.float32(2), np.array(2.0), np.array([2]), torch.tensor([[2.0]]), torch.tensor(2.0, requires_grad=True)],
)
def test_one_number_of_any_kind_is(given):
    assert verdict_of(lambda answer, question: given, "K", make_question(IMAGE)) == Verdict(2.0, True)


@pytest.mark.parametrize("given", [{0: 1.0}, "1", None, 3.0, torch.tensor(1.0), np.array(1.0)])
def test_a_reward_of_all_answers_is_a_list(given):
    class All:
        def __call__(self, answer, question):
            return 0.0

        def judge_all(self, answers):
            return given

    with pytest.raises(UserError, match=f"judge_all of the reward All gives a {type(given).__name__}; .* a list"):
        verdict_of(All(), "K", make_question(IMAGE))


@pytest.mark.parametrize("given", [None, 3, {"a": None}, {"a": "many"}])
def test_what_a_reward_counts_are_numbers_by_name(given):
    class Counting:
        def __call__(self, answer, question):
            return 0.0

        def counts(self):
            return given

    with pytest.raises(UserError, match="counts of the reward Counting fails: "):
        counts_of(Counting())


class Slow:
    """Is asked at once, as a judge is, and counts what it was asked."""

    def __init__(self) -> None:
        self.asked = []

    def __call__(self, question, answer):  # by name
        raise AssertionError("one at a time")

    def judge_all(self, answers):
        self.asked.append([answer for answer, _ in answers])
        return [Verdict(0.5, answer == question.answer) for answer, question in answers]

    def counts(self):
        return {"judge_asked": float(sum(map(len, self.asked)))}


class Scaled:
    """Has another reward, and no method `counts`."""

    def __init__(self, given, weight):
        self.given, self.weight, self.counts = given, weight, {}

    def __call__(self, answer, question):
        return self.weight * self.given(answer, question)


def test_rewards_that_have_others_stay_apart():
    exact, question = ExactAnswer(), make_question(IMAGE, answer="K")
    reward = BySource({"a": Scaled(exact, 1.0), "b": Scaled(exact, 0.5)})
    said = verdicts_of(reward, [("K", replace(question, source=source)) for source in ("a", "b")])
    assert [verdict.reward for verdict in said] == [1.0, 0.5] and reward.counts() == {}


def test_sources_ask_a_reward_for_all_its_answers_at_once_and_show_what_it_counts():
    slow = Slow()
    reward = BySource({"signs": slow, "charts": ExactAnswer()}, otherwise=slow)
    asked = [("K", "signs"), ("K", "charts"), ("L", "signs"), ("K", ""), (None, "charts")]
    questions = [replace(make_question(IMAGE, answer="K"), source=source) for _, source in asked]
    said = verdicts_of(reward, [(answer, question) for (answer, _), question in zip(asked, questions)])
    assert said == [(0.5, True), (1, True), (0.5, False), (0.5, True), (0, False)]
    assert slow.asked == [["K", "L", "K"]] and reward.counts() == {"judge_asked": 3}
