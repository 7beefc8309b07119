"""Functions and classes of one's own, in any sensible form, are rewards; others are refused in a sentence."""

import sys

import jsonargparse
import pytest

from mgpo.cli import main
from mgpo.errors import UserError
from mgpo.rewards import ExactAnswer, as_reward, verdict_of
from mgpo.training import MGPO
from tests.conftest import make_question, noise_image

IMAGE = noise_image(200, 100)

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


@pytest.mark.parametrize("name", ["near", "Near", "Static", "OfClass", "made", "part", "kept"])
def test_what_has_no_annotations_is_one_on_the_command_line(tmp_path, monkeypatch, name):
    (tmp_path / "unannotated.py").write_text(
        "import functools\ndef near(question, answer): return 0.5 * (answer == question.answer)\n"
        "class Near:\n    def __call__(self, question, answer): return near(question, answer)\n"
        "class Static:\n    __call__ = staticmethod(near)\n"
        "class OfClass:\n    @classmethod\n    def __call__(cls, question, answer): return near(question, answer)\n"
        "made, part = Near(), functools.partial(near)\n"
        "@functools.lru_cache\ndef kept(question, answer): return near(question, answer)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    reward = as_reward(parsed(f"unannotated.{name}"))
    assert verdict_of(reward, "K", make_question(noise_image(8, 8), answer="K")) == (0.5, True)


INIT = "    def __init__(self, weight: float = 1.0): self.weight = weight\n"
ASKED = {
    "no annotations": "(self, answer, question): return self.weight",
    "names of its own": "(self, said: str | None, asked: object) -> float: return self.weight",
    "the other order": "(self, question, answer): return self.weight",
    "keywords alone": "(self, *, answer, question): return self.weight",
    "more than it is given": "(self, answer, question, scale=1.0): return scale * self.weight",
}


@pytest.mark.parametrize("asked", ASKED.values(), ids=ASKED)
@pytest.mark.parametrize("within", ["alone", "by source"])
def test_classes_of_any_form_take_arguments(tmp_path, monkeypatch, asked, within):
    (tmp_path / "own_class.py").write_text(f"class Near:\n{INIT}    def __call__{asked}\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "own_class", raising=False)
    given = {"class_path": "own_class.Near", "init_args": {"weight": 0.5}}
    if within == "by source":
        given = {"class_path": "mgpo.rewards.BySource", "init_args": {"rewards": {}, "otherwise": given}}
    reward = as_reward(parsed(given))
    assert verdict_of(reward, "K", make_question(noise_image(8, 8))) == (0.5, True)


def test_arguments_on_the_command_line_reach_such_a_class(tmp_path, monkeypatch):
    (tmp_path / "own_options.py").write_text(f"class Near:\n{INIT}    def __call__{ASKED['no annotations']}\n")
    monkeypatch.syspath_prepend(tmp_path)
    parser = parser_of_model()
    for key in ("weight", "init_args.weight"):
        args = ["--model.reward", "own_options.Near", f"--model.reward.{key}", "0.5"]
        assert parser.instantiate(parser.parse_args(args)).model.reward.weight == 0.5


def test_shapings_and_cuts_need_no_annotations_either(tmp_path, monkeypatch):
    (tmp_path / "own_parts.py").write_text(
        f"class Shaped:\n{INIT}    def __call__(self, t): return self.weight\n"
        f"class Cut:\n{INIT}    def __call__(self, view, box, resolution): return view.crop(box, resolution.crop)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    half = {"weight": 0.5}
    parser = parser_of_model()
    given = {
        "shaping": [{"class_path": "own_parts.Shaped", "init_args": half}],
        "dialogue": {
            "class_path": "mgpo.TwoTurn",
            "init_args": {"cut": {"class_path": "own_parts.Cut", "init_args": half}},
        },
    }
    model = parser.instantiate(parser.parse_object({"model": given})).model
    assert (model.shaping[0].weight, model.dialogue.cut.weight) == (0.5, 0.5)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("import not_there_pkg", "importing broken_reward fails: ModuleNotFoundError: No module named 'not_there_pkg'"),
        ("def near(:", "importing broken_reward fails: SyntaxError"),
        ("1 / 0", r"importing broken_reward fails: ZeroDivisionError: division by zero \(.*broken_reward.py, line 1\)"),
        ("", "there is no broken_reward.near"),
    ],
)
def test_a_module_that_cannot_be_imported_is_told_why(tmp_path, monkeypatch, text, said):
    (tmp_path / "broken_reward.py").write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "broken_reward", raising=False)
    with pytest.raises(UserError, match=f"model.reward: {said}"):
        as_reward("broken_reward.near")


def test_what_can_not_be_asked_is_said_to_be_so():
    class NoCall:
        pass

    for given in (NoCall(), 3):
        with pytest.raises(UserError, match=rf"the reward {type(given).__name__} can't be asked: it has no __call__"):
            as_reward(given)
    with pytest.raises(UserError, match=r"the reward NoCall is a class; give an object of it, such as NoCall\(\)"):
        as_reward(NoCall)


def parser_of_model():
    parser = jsonargparse.ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(MGPO, "model", skip={"policy"}, instantiate=False)
    return parser


def parsed(reward):
    parser = parser_of_model()
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
