"""A score: the one figure that tables print, and its parts."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from mgpo.metrics.record import Record


@dataclass(frozen=True)
class Score:
    """`value` in [0, 1] over `n` questions; `parts` by name. None is a figure over no questions."""

    n: int
    value: float | None
    parts: dict[str, float | None] = field(default_factory=dict)


def accuracy(records: Sequence[Record]) -> Score:
    """Share of right answers, overall and by category: V* and any other multiple choice."""
    names = sorted({record.category for record in records})
    parts = {name: share(r.right for r in records if r.category == name) for name in names if name}
    return Score(len(records), share(r.right for r in records), parts)


def share(values: Iterable[float]) -> float | None:
    """The mean; None of nothing."""
    values = list(values)
    return sum(values) / len(values) if values else None
