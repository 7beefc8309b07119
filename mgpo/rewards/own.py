"""Functions and classes of one's own as rewards, whatever order or names their parameters have."""

from collections.abc import Callable
from importlib import import_module
from inspect import Parameter, Signature, isclass, signature
from types import FunctionType, MethodType, ModuleType
from typing import Any

from mgpo.errors import UserError
from mgpo.rewards.correctness import Reward
from mgpo.types import Question
from mgpo.utils.own_code import blaming

ASKED = ("answer", "question")


def as_reward(given: Callable[..., Any] | str) -> Reward:
    """A callable, or the dotted path of one or of its class, that is asked as rewards are.

    It is called by position where it takes answer and question alone, and by the names of its parameters otherwise.

    Raises:
        UserError: Where there is no such thing, or it takes neither an answer nor an answer and a question.
    """
    given = _found(given) if isinstance(given, str) else given
    if isclass(given):
        raise UserError(f"the reward {given.__name__} is a class; give an object of it, such as {given.__name__}()")
    if not callable(given):
        raise UserError(
            f"the reward {type(given).__name__} can't be asked: it has no __call__, which takes answer and question"
        )
    try:
        method = given.__call__  # a static or class one has all its parameters, of which its object loses the first
        takes = signature(method if isinstance(method, MethodType | FunctionType) else given)
    except (TypeError, ValueError):
        raise UserError(f"the reward {given!r} does not say what it takes; write a function around it") from None
    names = [name for name in takes.parameters if name in ASKED]
    if names == list(ASKED) and _binds(takes, 2):
        return given
    if names:
        by_name = all(takes.parameters[name].kind is not Parameter.POSITIONAL_ONLY for name in names)
        others = [p for name, p in takes.parameters.items() if name not in ASKED and _needed(p)]
        if by_name and not others:
            return ByName(given, names)
    elif len(takes.parameters) == 2 and _binds(takes, 2):  # others may do anything with an answer
        return given
    what = getattr(given, "__name__", type(given).__name__)
    raise UserError(f"the reward {what} takes {takes}; it should take answer and question, by name or by position")


def _found(path: str) -> Callable[..., Any]:
    """What lies at a path that the command line could not tell: a partial function, or an object that is called."""
    module, _, name = path.rpartition(".")
    try:
        with blaming(f"model.reward: importing {module}"):
            there = _imported(module)
        found = getattr(there, name)
        return found() if isinstance(found, type) else found
    except AttributeError:
        raise UserError(f"model.reward: there is no {path}, here or among what is installed") from None
    except TypeError as error:
        raise UserError(
            f"model.reward: {path} can't be made without arguments ({error}); they stand under init_args"
        ) from None


def _imported(name: str) -> ModuleType | None:
    """A module; None where there is none of that name, rather than none of those that it imports."""
    try:
        return import_module(name) if name else None
    except ModuleNotFoundError as error:
        if f"{name}.".startswith(f"{error.name}."):
            return None
        raise


class ByName:
    """A reward that is asked by the names of its parameters."""

    def __init__(self, given: Callable[..., Any], names: list[str]) -> None:
        self.given, self.names = given, names
        self.__name__ = getattr(given, "__name__", type(given).__name__)

    def __call__(self, answer: str | None, question: Question) -> Any:
        known = {"answer": answer, "question": question}
        return self.given(**{name: known[name] for name in self.names})

    def __getattr__(self, name: str) -> Any:
        if name in ("judge_all", "counts"):  # which a reward may have besides
            return getattr(self.given, name)
        raise AttributeError(name)


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
