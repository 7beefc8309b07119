"""Where questions come from. A source is a sized collection of questions, named by its class path."""

from typing import Protocol

from mgpo.errors import UserError
from mgpo.types import Question


class Source(Protocol):
    """A sized, indexable collection of questions; an index always gives the same question."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Question: ...


class DataError(UserError):
    """Data that can't be used; the message says what, where, and what to do."""
