"""HR-Bench: accuracy inside each cycle of the choices' order, averaged over cycles (arXiv 2408.15556)."""

from collections.abc import Sequence

from mgpo.evaluation.scoring.score import Score, share
from mgpo.metrics.record import Record


def hrbench(records: Sequence[Record]) -> Score:
    """Over all questions, of each category (single, cross), and of each cycle; the cycle is a record's `part`."""
    cycles = sorted({record.part for record in records})
    categories = sorted({record.category for record in records})
    parts = {name: over_cycles([r for r in records if r.category == name]) for name in categories}
    parts |= {f"cycle {cycle}": share(r.right for r in records if r.part == cycle) for cycle in cycles}
    return Score(len(records), over_cycles(records), parts)


def over_cycles(records: Sequence[Record]) -> float | None:
    """The mean of the cycles' accuracies: a cycle counts alike however many of its rows could be used."""
    cycles = {record.part for record in records}
    accuracies = [share(r.right for r in records if r.part == cycle) for cycle in cycles]
    return share(value for value in accuracies if value is not None)
