"""Functions and classes of one's own, in any sensible form, are rewards; others are refused in a sentence."""

import sys

import jsonargparse
import pytest

from mgpo.cli import main
from mgpo.errors import UserError
from mgpo.rewards import ExactAnswer, as_reward, verdict_of
from mgpo.training import MGPO
from tests.conftest import make_question, noise_image

FORMS = {
    "by position": "def reward(said, asked): return said == asked.answer",
    "by name": "def reward(question, answer): return answer == question.answer",
    "keywords alone": "def reward(*, question, answer): return answer == question.answer",
    "the answer alone": "def reward(answer): return answer == 'K'",
    "more, with defaults": "def reward(question, answer, weight=1.0): return weight * (answer == question.answer)",
    "a lambda": "reward = lambda answer, question: answer == question.answer",
}
BAD = {
    "nothing": "def reward(): return 1.0",
    "something else": "def reward(text): return 1.0",
    "more than there is": "def reward(answer, question, weight): return 1.0",
}


def made(code):
    space = {}
    exec(code, space)  # ours, from above
    return space["reward"]


@pytest.mark.parametrize("code", FORMS.values(), ids=FORMS)
def test_any_sensible_form_is_a_reward(code):
    reward, question = as_reward(made(code)), make_question(noise_image(8, 8), answer="K")
    assert [verdict_of(reward, answer, question).right for answer in ("K", "L")] == [True, False]


@pytest.mark.parametrize("code", BAD.values(), ids=BAD)
def test_others_are_refused(code):
    with pytest.raises(UserError, match=r"the reward reward takes .*it should take answer and question"):
        as_reward(made(code))


def test_rewards_that_are_ones_stay_themselves():
    reward = ExactAnswer()
    assert as_reward(reward) is reward


def test_a_class_without_annotations_is_one_on_the_command_line(tmp_path, monkeypatch):
    (tmp_path / "unannotated.py").write_text(
        "class Near:\n    def __init__(self, weight=0.5): self.weight = weight\n"
        "    def __call__(self, question, answer): return self.weight * (answer == question.answer)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    parser = jsonargparse.ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(MGPO, "model", skip={"policy"}, instantiate=False)
    chosen = {"model": {"reward": {"class_path": "unannotated.Near", "init_args": {"weight": 0.25}}}}
    reward = as_reward(parser.instantiate(parser.parse_object(chosen)).model.reward)
    assert verdict_of(reward, "K", make_question(noise_image(8, 8), answer="K")) == (0.25, True)


def test_modules_in_the_working_folder_are_found(tmp_path, monkeypatch):
    """Whatever starts the command: the console script has its own folder in front of Python's path."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.path", ["/nowhere"])
    with pytest.raises(SystemExit):
        main(["fit", "--no_such_key"])

    assert str(tmp_path) in sys.path
