"""A reward of one's own: a function or a class in one file, which says itself what is right."""

from functools import partial

import pytest

from mgpo.dialogues import TwoTurn
from mgpo.errors import UserError
from mgpo.evaluation.counterfactuals import counterfactuals
from mgpo.evaluation.greedy import assess
from mgpo.images.decoding import to_rgb
from mgpo.rewards import Verdict, verdict_of
from mgpo.rollout import Sampling
from mgpo.rollout.episodes import judge, roll_out
from mgpo.types import Trajectory
from tests.conftest import make_question, noise_image
from tests.helpers.cases import RULE
from tests.rollout.test_rollout import Scripted

IMAGE = noise_image(200, 100)
NEAR = """
    from mgpo.rewards import Verdict
    from mgpo.types import Question

    def near(answer: str | None, question: Question) -> Verdict:
        if answer is None or not answer.isdecimal():
            return Verdict(0.0, right=False)
        off = min(abs(int(answer) - int(truth)) for truth in (question.answer, *question.accepted))
        return Verdict(1 / (1 + off), right=off == 0)

    class Near:
        def __init__(self, weight: float = 1.0) -> None:
            self.weight = weight

        def __call__(self, answer: str | None, question: Question) -> float:
            return self.weight * near(answer, question).reward
"""


def answered(*answers, truth="7", accepted=()):
    question = make_question(IMAGE, answer=truth)
    object.__setattr__(question, "accepted", accepted)
    return [Trajectory(question, IMAGE, answer=answer) for answer in answers]


def test_a_function_is_named_by_its_path_and_says_what_is_right(write_file, configured):
    write_file("my_rewards", NEAR)
    reward = configured("--model.reward=my_rewards.near").model.reward
    played = answered("8", "7", "9", None, truth="8", accepted=("9",))
    judge(played, reward)
    assert [(t.reward, t.right) for t in played] == [(1.0, True), (0.5, False), (1.0, True), (0.0, False)]


def test_a_class_takes_arguments_and_a_number_above_0_is_right(write_file, configured):
    write_file("my_rewards", NEAR)
    reward = configured("--model.reward=my_rewards.Near", "--model.reward.weight=0.5").model.reward
    played = answered("7", "8", None)
    judge(played, reward)
    assert [(t.reward, t.right) for t in played] == [(0.5, True), (0.25, True), (0.0, False)]


def test_a_plain_function_survives_the_saved_configuration(write_file, configured):
    write_file("my_rewards", NEAR)
    cli = configured("--model.reward=my_rewards.near")
    assert "reward: my_rewards.near" in cli.parser.dump(cli.config)


def test_every_place_that_judges_hears_the_verdict(policy):
    """Part of a reward for every answer, none of them right: rollouts, evaluation, sub-images, counterfactuals."""

    def partly(answer, question):
        return Verdict(0.25, right=False)

    samples = [(make_question(IMAGE, str(i)), to_rgb(noise_image(300, 200, i))) for i in range(3)]
    play, how = partial(roll_out, policy, Scripted(1)), (TwoTurn(rule=RULE), samples, Sampling(4, 0.0), partly, 0)
    records = assess(play, policy.resolution, *how)
    assert [(r.reward, r.right, r.subimage_right) for r in records] == [(0.25, False, False)] * 3
    assert not any(
        row[name] for row in counterfactuals(play, *how) for name in row if name not in ("id", "split", "category")
    )


@pytest.mark.parametrize("given", [None, "1.0", (1.0, True), [1]])
def test_what_is_no_verdict_is_said_in_one_sentence(given):
    def broken(answer, question):
        return given

    with pytest.raises(UserError, match=r"the reward broken gives .* for question q; it should return a number, or"):
        verdict_of(broken, "7", make_question(IMAGE))
