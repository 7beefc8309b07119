"""POPE: yes or no, with yes as the positive class (arXiv 2305.10355)."""

import re
from collections.abc import Sequence

from mgpo.answers import normalise
from mgpo.evaluation.scoring.score import Score, share
from mgpo.metrics.record import Record


def pope(records: Sequence[Record]) -> Score:
    """Accuracy, F1, precision, recall and the share of yes; overall and by category. The value is the accuracy."""
    parts = dict(_figures(records))
    for name in sorted({record.category for record in records}):
        figures = _figures([record for record in records if record.category == name])
        parts |= {f"{name} {figure}": value for figure, value in figures.items()}
    return Score(len(records), parts["accuracy"], parts)


def says(answer: str | None) -> str | None:
    """yes or no, where an answer begins with it."""
    match = re.match(r"(yes|no)\b", normalise(answer or ""))
    return match[1] if match else None


def _figures(records: Sequence[Record]) -> dict[str, float | None]:
    pairs = [(says(record.answer), record.truth) for record in records]
    hits = sum(said == truth == "yes" for said, truth in pairs)
    said_yes, true_yes = sum(said == "yes" for said, _ in pairs), sum(truth == "yes" for _, truth in pairs)
    return {
        "accuracy": share(said == truth for said, truth in pairs),
        "F1": 2 * hits / (said_yes + true_yes) if said_yes + true_yes else None,
        "precision": hits / said_yes if said_yes else None,
        "recall": hits / true_yes if true_yes else None,
        "yes ratio": share(said == "yes" for said, _ in pairs),
    }
