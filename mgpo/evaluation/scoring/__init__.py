"""How each benchmark is scored from records, by its own rules and by those of two common harnesses."""

from collections.abc import Callable, Sequence

from mgpo.errors import UserError
from mgpo.evaluation.scoring.counting import counting
from mgpo.evaluation.scoring.hrbench import hrbench
from mgpo.evaluation.scoring.mme_realworld import mme_realworld
from mgpo.evaluation.scoring.pope import pope
from mgpo.evaluation.scoring.score import Score, accuracy
from mgpo.metrics.record import Record

SCORES: dict[str, Callable[[Sequence[Record]], Score]] = {
    "accuracy": accuracy,
    "counting": counting,
    "hrbench": hrbench,
    "mme_realworld": mme_realworld,
    "multiple_choice": accuracy,
    "pope": pope,
    "vstar": accuracy,
}


def score(name: str, records: Sequence[Record]) -> Score:
    """The score of one benchmark's records. Raises UserError for a name that is not in SCORES."""
    if name not in SCORES:
        raise UserError(f"there is no score {name!r}; there are {', '.join(SCORES)}")
    return SCORES[name](records)


__all__ = ["SCORES", "Score", "score"]
