"""A benchmark's score as the class of its source has it, that by two common harnesses, and published figures."""

from collections.abc import Sequence
from typing import Any

from mgpo.errors import UserError
from mgpo.metrics.record import Record
from mgpo.metrics.score import Score, accuracy


def score(source: Any, records: Sequence[Record]) -> Score:
    """A source's records by its own `score`, or their accuracy where it has none. Raises UserError for no `Score`."""
    judge = getattr(source, "score", accuracy)
    made = judge(records) if callable(judge) else judge
    if not isinstance(made, Score):
        raise UserError(
            f"{_class_of(source)}.score gives {repr(made)[:80]}; it should be a static method from records to a "
            "mgpo.metrics.Score"
        )
    return made


def score_name(source: Any) -> str:
    """What a source's score is called."""
    if getattr(source, "score", accuracy) is accuracy:
        return getattr(source, "scored_as", "") or "accuracy"
    return getattr(source, "scored_as", "") or _class_of(source)


def _class_of(source: Any) -> str:
    return source.__name__ if isinstance(source, type) else type(source).__name__


__all__ = ["Score", "score", "score_name"]
