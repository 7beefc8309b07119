"""Choices as benchmarks write them: "(A) red" in a list, a text of such lines, or behind the question."""

import ast
import re
from collections.abc import Sequence
from typing import Any

from mgpo.answers import LETTERS
from mgpo.data.rows import check_choices
from mgpo.data.sources import DataError

_LETTERED = re.compile(r"\s*[(（]?([A-Z])[)）.:]\s*(.*)", re.DOTALL)
_MARK = re.compile(r"[(（]([A-Z])[)）]")
LONGEST_LIST = 10_000  # characters of a list that stands in a text


def split_choices(text: str) -> tuple[str, tuple[str, ...]]:
    """The question and its choices, of "What colour? (A) red (B) blue", on one line or each on its own.

    Choices are lettered from (A) without a gap; where they stand on lines, what follows the last one's
    line (an instruction how to answer) is left out. Raises DataError where there are none.
    """
    marks = list(_MARK.finditer(text))
    start = max((i for i, mark in enumerate(marks) if mark[1] == "A"), default=None)
    if start is None:
        raise DataError("no choices (A), (B), … stand in the text")
    marks = [mark for mark, letter in zip(marks[start:], LETTERS) if mark[1] == letter]
    ends = [mark.start() for mark in marks[1:]] + [len(text)]
    choices = [text[mark.end() : end].strip().split("\n")[0].strip() for mark, end in zip(marks, ends)]
    return text[: marks[0].start()].strip(), check_choices("text", choices)


def lettered(column: str, value: Any) -> tuple[str, ...]:
    """The texts of ["(A) red", "(B) blue", …], also where that list stands in a text. Raises DataError."""
    if isinstance(value, str):
        value = _parse(column, value)
    found = [_LETTERED.fullmatch(choice) if isinstance(choice, str) else None for choice in value or ()]
    letters = "".join(match[1] if match else "?" for match in found)
    if not found or letters != LETTERS[: len(found)]:
        raise DataError(f'column {column}: a list "(A) …", "(B) …" is needed, not {str(value)[:100]}')
    return check_choices(column, [match[2].strip() for match in found if match])


def _parse(column: str, text: str) -> Sequence[Any]:
    try:
        value = ast.literal_eval(text) if len(text) <= LONGEST_LIST else None
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        value = None
    if not isinstance(value, list):
        raise DataError(f"column {column}: a list of choices is needed, not {text[:100]!r}")
    return value
