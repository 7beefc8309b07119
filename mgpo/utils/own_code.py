"""Code of a user's own: classes known by what they can do, and their failures told in one sentence."""

import traceback
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from types import FunctionType
from typing import Any

from mgpo.errors import UserError

SHOWN = 200  # characters of an error


class Called(ABC):
    """Every class whose objects can be called, whatever its `__call__` takes: a configuration may name it.

    The command line compares a protocol with names and annotations, which classes of a user's own need not have.
    """

    @abstractmethod
    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Whatever it is for."""

    @classmethod
    def __subclasshook__(cls, other: type) -> bool:
        return isinstance(getattr(other, "__call__", None), FunctionType)  # noqa: B004  # of classes alone, not types


@contextmanager
def blaming(what: str) -> Iterator[None]:
    """Inside, whatever is raised becomes a UserError that says what failed, why, and in which line."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        at = traceback.extract_tb(error.__traceback__)[-1]
        why = " ".join(f"{type(error).__name__}: {error}".split())[:SHOWN].removesuffix(": ")
        raise UserError(f"{what} fails: {why} ({at.filename}, line {at.lineno})") from error
