"""Counting: the exact number, and how far off where it is not."""

from collections.abc import Sequence

from mgpo.answers import find_number
from mgpo.evaluation.scoring.score import Score, share
from mgpo.metrics.record import Record


def counting(records: Sequence[Record]) -> Score:
    """Share of exact counts; the mean absolute error is over the answers that hold one number."""
    given = [(find_number(r.answer) if r.answer is not None else None, float(r.truth)) for r in records]
    errors = [abs(number - truth) for number, truth in given if number is not None]
    exact = share(number == truth for number, truth in given)
    parts = {"mean absolute error": share(errors), "a number given": share(n is not None for n, _ in given)}
    return Score(len(records), exact, parts)
