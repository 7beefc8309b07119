"""What sources that read rows share: which rows can't be used is counted and named, and costs those rows only."""

import sys
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import date, datetime, time
from decimal import Decimal
from math import isfinite
from reprlib import Repr
from time import monotonic
from typing import Any

from mgpo.answers import LETTERS
from mgpo.data.base import BROKEN, DataError, broken
from mgpo.errors import UserError
from mgpo.images.decoding import BadImage
from mgpo.types import Question
from mgpo.utils.collectives import local_rank

SHOWN = 5  # bad rows named in a message
LONGEST = 560  # characters of a message
PATIENCE = 5.0  # seconds of reading in which nothing need be said
Row = Mapping[str, Any]
_BRIEF = Repr()
_BRIEF.maxlevel, _BRIEF.maxdict, _BRIEF.maxlist, _BRIEF.maxstring, _BRIEF.maxother = 2, 3, 3, 80, 80


class RowSource(ABC):
    """Questions made from numbered rows; what can't be used is left out, counted and named.

    Args:
        name: What the rows are called in messages: a file, a folder, a repository.
        rows: The rows in order, each with its number.

    Raises:
        DataError: If no row can be used.
    """

    def __init__(self, name: str, rows: Iterable[tuple[int, Row]]) -> None:
        self.name = name
        self.bad: list[str] = []
        self.notes: list[str] = []  # what else there is to say
        self.ids: set[str] = set()
        self.questions = list(self._questions(counted(rows, name)))
        self.total = len(self.questions) + len(self.bad)
        if not self.questions:
            reasons = listed(self.bad) or "it holds no rows"
            raise DataError(f"{ending(name)}: no row can be used ({reasons})")

    def __len__(self) -> int:
        return len(self.questions)

    def __getitem__(self, index: int) -> Question:
        return self.questions[index]

    def complaint(self) -> str | None:
        """What was left out, and what else there is to say; None where there is nothing."""
        notes = list(self.notes)
        if self.bad:
            notes.append(f"{len(self.bad)} rows are left out: {listed(self.bad, LONGEST - sum(map(len, notes)) - 150)}")
        return f"{ending(self.name)}: " + "; ".join(notes) if notes else None

    @abstractmethod
    def question(self, row: Row, number: int) -> Question:
        """The question of a row, counted from 1. Raises DataError or BadImage where it can't be used."""

    def unusable(self, number: int, error: UserError) -> None:
        """Leave a row out, and keep its number and what is wrong with it for `complaint`."""
        self.bad.append(f"row {number}, {error}")

    def unique(self, name: str, number: int) -> str:
        """An id of its own for a row: that of an image may stand at several questions."""
        while name in self.ids:
            name = f"{name}-{number}"
        self.ids.add(name)
        return name

    def _questions(self, rows: Iterable[tuple[int, Row]]) -> Iterator[Question]:
        number = 0
        try:
            for number, row in rows:
                try:
                    yield self.question(row, number)
                except (DataError, BadImage) as error:
                    self.unusable(number, error)
        except UnicodeDecodeError:  # a table's texts are decoded where they are looked at
            reason = f"the file can't be read behind row {number}: it is not UTF-8"
            raise DataError(f"{ending(self.name)}: {reason}") from None


def counted(rows: Iterable[tuple[int, Row]], name: str) -> Iterator[tuple[int, Row]]:
    """The rows as they are; where they take long, the first process says now and then how many there were."""
    first, said = local_rank() == 0, monotonic()
    for number, row in rows:
        if first and monotonic() - said > PATIENCE:
            print(f"{ending(name)}: {number - 1:,} rows read …", file=sys.stderr, flush=True)
            said = monotonic()
        yield number, row


def check_columns(name: str, columns: Sequence[str], needed: Sequence[str], remedy: str = "") -> None:
    """Raises DataError for the first needed column that is missing, and says which there are, and what to do."""
    if missing := [column for column in needed if column not in columns]:
        then = remedy.format(column=missing[0])
        there = ", ".join(column[:40] for column in columns[:12]) + (", …" if len(columns) > 12 else "")
        raise DataError(f"{ending(name)}: column {missing[0]!r} is missing; the file has {there or 'none'}{then}")


def text_of(row: Row, column: str) -> str:
    """A cell as a text without space around it. Raises DataError where it is none or empty."""
    return text(row[column], column)


def optional(row: Row, column: str) -> str:
    """As `text_of`, but "" where the row has no such cell, or an empty one."""
    value = row.get(column)
    return "" if value is None or (isinstance(value, str) and not value.strip()) else text(value, column)


def text(value: Any, column: str) -> str:
    """A value of a column as a text. Raises DataError."""
    if isinstance(value, bool) or not isinstance(value, str | int | float | date | Decimal):
        raise DataError(f"column {column}: a text is needed, not {shown(value)}")
    if isinstance(value, float) and not isfinite(value):
        raise DataError(f"column {column}: {value} is no number that can be meant; write a text in quotes")
    if isinstance(value, datetime) and value.time() == time():
        value = value.date()  # as tables of Parquet hold one
    words = str(value).strip()
    if not words:
        raise DataError(f"column {column}: it is empty")
    if broken(words):
        raise DataError(f"column {column}: it {BROKEN}")
    return words


def check_choices(column: str, choices: Sequence[str]) -> tuple[str, ...]:
    """Choices as a tuple: 2 to 26 texts, which can be lettered.

    Raises:
        DataError: For anything else.
    """
    if not all(isinstance(choice, str) and choice.strip() for choice in choices):
        raise DataError(f"column {column}: a list of texts is needed")
    if not 2 <= len(choices) <= len(LETTERS):
        raise DataError(f"column {column}: {len(choices)} choices; 2 to {len(LETTERS)} can be lettered")
    return tuple(choices)


def shown(value: Any) -> str:
    """A value in a message: on one line, and of bounded length."""
    return f"{len(value):,} bytes" if isinstance(value, bytes) else _BRIEF.repr(value)[:200]


def ending(name: str) -> str:
    """A path for a message; of one that is longer than 150 characters, its end."""
    return name if len(name) <= 150 else f"…{name[-150:]}"


def listed(reasons: Sequence[str], room: int = LONGEST - 200) -> str:
    """The first few of many reasons, as far as there is room, and how many more there are."""
    parts: list[str] = []
    for reason in reasons[:SHOWN]:
        if parts and sum(map(len, parts)) + len(reason) > room:
            break
        parts.append(reason if len(reason) <= max(room, 100) else f"{reason[: max(room, 100)]}…")
    more = len(reasons) - len(parts)
    return "; ".join(parts) + (f"; and {more} more" if more else "")
