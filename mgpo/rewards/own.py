"""Functions and classes of one's own as rewards, whatever order or names their parameters have."""

from collections.abc import Callable
from inspect import Parameter, Signature, signature
from typing import Any

from mgpo.errors import UserError
from mgpo.rewards.correctness import Reward
from mgpo.types import Question

ASKED = ("answer", "question")


def as_reward(given: Callable[..., Any]) -> Reward:
    """A callable that is asked as rewards are: itself, or one that calls it by the names of its parameters.

    Raises:
        UserError: Where it takes neither an answer nor an answer and a question.
    """
    try:
        takes = signature(given)
    except (TypeError, ValueError):  # builtins that do not say
        return given
    names = [name for name in takes.parameters if name in ASKED]
    if names == list(ASKED) and _binds(takes, 2):
        return given
    if names:
        by_name = all(takes.parameters[name].kind is not Parameter.POSITIONAL_ONLY for name in names)
        others = [p for name, p in takes.parameters.items() if name not in ASKED and _needed(p)]
        if by_name and not others:
            return _ByName(given, names)
    elif _binds(takes, 2):
        return given
    what = getattr(given, "__name__", type(given).__name__)
    raise UserError(f"the reward {what} takes {takes}; it should take answer and question, by name or by position")


class _ByName:
    def __init__(self, given: Callable[..., Any], names: list[str]) -> None:
        self.given, self.names = given, names
        self.__name__ = getattr(given, "__name__", type(given).__name__)

    def __call__(self, answer: str | None, question: Question) -> Any:
        known = {"answer": answer, "question": question}
        return self.given(**{name: known[name] for name in self.names})


def _binds(takes: Signature, count: int) -> bool:
    try:
        takes.bind(*[None] * count)
    except TypeError:
        return False
    return True


def _needed(parameter: Parameter) -> bool:
    return parameter.default is Parameter.empty and parameter.kind not in (
        Parameter.VAR_POSITIONAL,
        Parameter.VAR_KEYWORD,
    )
