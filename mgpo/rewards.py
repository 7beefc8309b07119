"""Rewards see the answer and the question, nothing else: no box can reach them (paper, section 3.2)."""

from typing import Protocol

from mgpo.answers import is_right
from mgpo.types import Question


class Reward(Protocol):
    """Judges an extracted answer; None is a reply that commits to nothing."""

    def __call__(self, answer: str | None, question: Question) -> float: ...


class ExactAnswer:
    """1 if the final answer is right, else 0: option letter, number or words, as the question asks."""

    def __call__(self, answer: str | None, question: Question) -> float:
        return float(is_right(answer, question.answer, question.choices))
