"""What sources that read rows share: which rows can't be used is counted and named, and costs those rows only."""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from math import isfinite
from typing import Any

from mgpo.answers import LETTERS
from mgpo.data.sources import DataError
from mgpo.images import BadImage
from mgpo.types import Question

SHOWN = 5  # bad rows named in a message
Row = Mapping[str, Any]


class RowSource(ABC):
    """Questions made from numbered rows; what can't be used is left out, counted and named.

    Args:
        name: What the rows are called in messages: a file, a folder, a repository.
        rows: The rows in order.

    Raises:
        DataError: If no row can be used.
    """

    def __init__(self, name: str, rows: Iterable[Row]) -> None:
        self.name = name
        self.bad: list[str] = []
        self.notes: list[str] = []  # what else there is to say
        self.ids: set[str] = set()
        self.questions = list(self._questions(rows))
        if not self.questions:
            reasons = "; ".join(self.bad[:SHOWN]) or "it holds no rows"
            raise DataError(f"{name}: no row can be used ({reasons})")

    def __len__(self) -> int:
        return len(self.questions)

    def __getitem__(self, index: int) -> Question:
        return self.questions[index]

    def complaint(self) -> str | None:
        """What was left out, and what else there is to say; None where there is nothing."""
        notes = list(self.notes)
        if self.bad:
            more = f"; and {len(self.bad) - SHOWN} more" if len(self.bad) > SHOWN else ""
            notes.append(f"{len(self.bad)} rows are left out: " + "; ".join(self.bad[:SHOWN]) + more)
        return f"{self.name}: " + "; ".join(notes) if notes else None

    @abstractmethod
    def question(self, row: Row, number: int) -> Question:
        """The question of a row, counted from 1. Raises DataError or BadImage where it can't be used."""

    def unique(self, name: str, number: int) -> str:
        """An id of its own for a row: that of an image may stand at several questions."""
        name = name if name not in self.ids else f"{name}-{number}"
        self.ids.add(name)
        return name

    def _questions(self, rows: Iterable[Row]) -> Iterator[Question]:
        number = 0
        try:
            for number, row in enumerate(rows, start=1):
                try:
                    yield self.question(row, number)
                except (DataError, BadImage) as error:
                    self.bad.append(f"row {number}, {error}")
        except UnicodeDecodeError:  # texts are decoded where they are looked at
            raise DataError(f"{self.name}: the file can't be read behind row {number}: it is not UTF-8") from None


def check_columns(name: str, columns: Sequence[str], needed: Sequence[str]) -> None:
    """Raises DataError for the first needed column that is missing, and says which there are."""
    if missing := [column for column in needed if column not in columns]:
        raise DataError(f"{name}: column {missing[0]!r} is missing; the file has {', '.join(columns)}")


def text_of(row: Row, column: str) -> str:
    """A cell as a text without space around it. Raises DataError where it is none or empty."""
    value = row[column]
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise DataError(f"column {column}: a text is needed, not {value!r}")
    if isinstance(value, float) and not isfinite(value):
        raise DataError(f"column {column}: {value} is no number that can be meant; write a text in quotes")
    if not str(value).strip():
        raise DataError(f"column {column}: it is empty")
    return str(value).strip()


def check_choices(column: str, choices: Sequence[str]) -> tuple[str, ...]:
    """2 to 26 texts that can be lettered. Raises DataError for others."""
    if not all(isinstance(choice, str) and choice.strip() for choice in choices):
        raise DataError(f"column {column}: a list of texts is needed")
    if not 2 <= len(choices) <= len(LETTERS):
        raise DataError(f"column {column}: {len(choices)} choices; 2 to {len(LETTERS)} can be lettered")
    return tuple(choices)
