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


@pytest.mark.parametrize("name", ["near", "Near"])
def test_what_has_no_annotations_is_one_on_the_command_line(tmp_path, monkeypatch, name):
    (tmp_path / "unannotated.py").write_text(
        "def near(question, answer): return 0.5 * (answer == question.answer)\n"
        "class Near:\n    def __call__(self, question, answer): return near(question, answer)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    reward = as_reward(parsed(f"unannotated.{name}"))
    assert verdict_of(reward, "K", make_question(noise_image(8, 8), answer="K")) == (0.5, True)


def parsed(reward):
    parser = jsonargparse.ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(MGPO, "model", skip={"policy"}, instantiate=False)
    return parser.instantiate(parser.parse_object({"model": {"reward": reward}})).model.reward


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("no_such_module.reward", "there is no no_such_module.reward"),
        ("mgpo.rewards.Nice", "there is no mgpo.rewards.Nice"),
        ("shutil.rmtree", "it should take answer and question"),
        ("os.rename", "it should take answer and question"),
        ("os.system", "it should take answer and question"),
    ],
)
def test_what_is_none_is_refused_and_never_called(path, words):
    with pytest.raises(UserError, match=words):
        as_reward(parsed(path))


def test_a_function_is_not_called_to_make_a_reward(tmp_path):
    with pytest.raises(jsonargparse.ArgumentError):
        parsed({"class_path": "os.system", "init_args": {"command": f"touch {tmp_path}/owned"}})
    assert not list(tmp_path.iterdir())


def test_modules_in_the_working_folder_are_found(tmp_path, monkeypatch):
    """Whatever starts the command: the console script has its own folder in front of Python's path."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.path", ["/nowhere"])
    with pytest.raises(SystemExit):
        main(["fit", "--no_such_key"])

    assert str(tmp_path) in sys.path
