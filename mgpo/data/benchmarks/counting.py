"""What counting benchmarks share: the question, the count in a row, and the score."""

from collections.abc import Sequence

from mgpo.answers import find_number
from mgpo.data.base import DataError
from mgpo.data.row_source import Row, shown, text_of
from mgpo.metrics.record import Record
from mgpo.metrics.score import Score, share

QUESTION = "How many {} are there in the picture? Answer with a number."


def count_of(row: Row) -> str:
    """The column `count`. Raises DataError where it is no whole number from 0."""
    text = text_of(row, "count")
    if not text.isdecimal():
        raise DataError(f"column count: a whole number is needed, not {shown(text)}")
    return text


def counting(records: Sequence[Record]) -> Score:
    """Share of exact counts; the mean absolute error is over the answers that hold one number."""
    given = [(find_number(r.answer) if r.answer is not None else None, float(r.truth)) for r in records]
    errors = [abs(number - truth) for number, truth in given if number is not None]
    exact = share(number == truth for number, truth in given)
    parts = {"mean absolute error": share(errors), "a number given": share(n is not None for n, _ in given)}
    return Score(len(records), exact, parts)
