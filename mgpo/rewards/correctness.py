"""Rewards see the answer and the question, nothing else: no box can reach them (paper, section 3.2)."""

from typing import Protocol

from mgpo.answers import is_number, is_right
from mgpo.types import Question


class Reward(Protocol):
    """Judges an extracted answer; None is a reply that commits to nothing. Above 0 counts as right."""

    def __call__(self, answer: str | None, question: Question) -> float: ...


class ExactAnswer:
    """1 if the final answer is right, else 0: option letter, number or words, as the question asks."""

    def __call__(self, answer: str | None, question: Question) -> float:
        return float(any(is_right(answer, truth, question.choices) for truth in (question.answer, *question.accepted)))


class NumericAnswer:
    """1 if the answer is a number near enough to the right one, else 0; an option where there are choices.

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
