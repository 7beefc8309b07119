"""Rewards see the answer and the question, nothing else: no box can reach them (paper, section 3.2)."""

from abc import abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple, SupportsFloat

from mgpo.answers import is_number, is_right
from mgpo.errors import UserError
from mgpo.types import Question
from mgpo.utils.interface import Interface
from mgpo.utils.own_code import blaming


class Verdict(NamedTuple):
    """What training sees of an answer, and whether accuracies count it as right: part of a reward need not be."""

    reward: float
    right: bool


class Reward(Interface):
    """Judges an extracted answer; None is a reply that commits to nothing.

    A number says both: what training sees, and that the answer is right where it is above 0. A `Verdict` says them
    apart. What is right is in the question: `answer`, and the texts of `accepted`, which are right as well.

    One that takes its time may have a method `judge_all` too, which is given a list of (answer, question) and gives
    what it says of each, in order; it is then asked for all answers of a step at once. A method `counts`, which gives
    numbers by name, adds them to the curves of training.

    A class or a plain function, with or without annotations, its parameters in any order (`mgpo.rewards.as_reward`).

    Example:
        The nearer a count, the more; right is the number alone. In my_rewards.py::

            from mgpo.rewards import Verdict
            from mgpo.types import Question


            def near(answer: str | None, question: Question) -> Verdict:
                if answer is None or not answer.isdecimal():
                    return Verdict(0.0, right=False)
                off = min(abs(int(answer) - int(truth)) for truth in (question.answer, *question.accepted))
                return Verdict(1 / (1 + off), right=off == 0)

        and on the command line ``--model.reward my_rewards.near``.
    """

    @abstractmethod
    def __call__(self, answer: str | None, question: Question) -> Any: ...


def verdict_of(reward: Reward, answer: str | None, question: Question) -> Verdict:
    """What a reward says of an answer. Raises UserError where it fails, or gives neither a number nor a `Verdict`."""
    return verdicts_of(reward, [(answer, question)])[0]


def verdicts_of(reward: Reward, answers: Sequence[tuple[str | None, Question]]) -> list[Verdict]:
    """The same of many answers, in order."""
    judge_all = getattr(reward, "judge_all", None)
    if judge_all is None:
        given = [_asked(reward, *asked) for asked in answers]
    else:
        with blaming(f"judge_all of the reward {_name(reward)}"):
            given = judge_all(answers)
            if isinstance(given, str | Mapping) or not isinstance(given, Iterable) or getattr(given, "ndim", 1) == 0:
                raise UserError(
                    f"judge_all of the reward {_name(reward)} gives a {type(given).__name__}; it should give a list, "
                    "with what it says of each answer in order"
                )
            given = list(given)
    if len(given) != len(answers):
        raise UserError(
            f"the reward {_name(reward)} judges {len(given)} of {len(answers)} answers; it should judge all"
        )
    return [_checked(reward, said, question) for said, (_, question) in zip(given, answers)]


def counts_of(reward: Reward) -> dict[str, float]:
    """What a reward counts of itself by name, where it does."""
    counts: Callable[[], Any] | None = getattr(reward, "counts", None)
    if not callable(counts):
        return {}
    with blaming(f"counts of the reward {_name(reward)}"):
        given = counts()
        if not isinstance(given, Mapping):
            raise TypeError(f"numbers by name are needed, not a {type(given).__name__}")
        return {str(name): float(value) for name, value in given.items()}


def _asked(reward: Reward, answer: str | None, question: Question) -> Any:
    with blaming(f"the reward {_name(reward)}, asked about question {question.id},"):
        return reward(answer, question)


def _checked(reward: Reward, given: Any, question: Question) -> Verdict:
    value, right = given if isinstance(given, Verdict) else (given, None)
    try:
        value = float_of(value)
        return Verdict(value, value > 0 if right is None else bool(right))
    except (TypeError, ValueError, RuntimeError):  # of a truth, an array has none
        raise UserError(
            f"the reward {_name(reward)} gives {' '.join(repr(given).split())[:80]} for question {question.id}; it "
            "should return a number, or a mgpo.rewards.Verdict"
        ) from None


def float_of(value: Any) -> float:
    """What is one number, of Python, numpy or torch, as one of Python's. Raises TypeError or ValueError for others."""
    several = value.numel() != 1 if hasattr(value, "numel") else getattr(value, "size", 1) != 1
    if not isinstance(value, SupportsFloat) or several:
        raise TypeError(f"a number is needed, not {' '.join(repr(value).split())[:80]}")
    return float(value.item() if hasattr(value, "item") else value)  # type: ignore[attr-defined]


def _name(reward: Reward) -> str:
    return getattr(reward, "__name__", type(reward).__name__)


class ExactAnswer:
    """Gives 1 if the final answer is right, else 0: option letter, number or words, as the question asks."""

    def __call__(self, answer: str | None, question: Question) -> float:
        return float(any(is_right(answer, truth, question.choices) for truth in (question.answer, *question.accepted)))


class NumericAnswer:
    """Gives 1 if the answer is a number near enough to the right one, else 0; an option where there are choices.

    The answer may carry words around one number ("about 12 cars", "twelve"); two numbers are no answer.

    Args:
        relative: Allowed error as a share of the right number.
        absolute: Allowed error; with both at 0 (counting) the numbers must be equal.
    """

    def __init__(self, relative: float = 0.0, absolute: float = 0.0) -> None:
        self.relative, self.absolute = relative, absolute

    def __call__(self, answer: str | None, question: Question) -> float:
        if ExactAnswer()(answer, question):
            return 1.0
        if answer is None or question.choices:
            return 0.0
        truths = (question.answer, *question.accepted)
        return float(any(is_number(answer, truth, self.relative, self.absolute) for truth in truths))
