"""The same few questions, looked at again and again through a run."""

from typing import Any

import lightning as L
import numpy as np

from mgpo.data.base import question_of
from mgpo.images.decoding import BadImage
from mgpo.images.lazy import open_all
from mgpo.images.views import Original, Resize
from mgpo.types import Asked, Question


class FixedQuestions:
    """Questions at even distances over a run's sources, each opened once.

    Args:
        count: How many.
    """

    def __init__(self, count: int) -> None:
        self.count = count
        self.chosen: list[Question] = []
        self.originals: dict[tuple[str, str], tuple[Original, ...]] = {}

    def choose(self, sources: list[Any]) -> None:
        """Take them from these sources."""
        self.chosen = choose(sources, self.count)

    def mine(self, trainer: L.Trainer, whole: Resize) -> list[Asked]:
        """This rank's share with pictures; one that can't be opened costs the question, not the run."""
        share = self.chosen[trainer.global_rank :: trainer.world_size]
        return [(question, *images) for question in share if (images := self._originals(question, whole))]

    def _originals(self, question: Question, whole: Resize) -> tuple[Original, ...]:
        key = (question.split, question.id)
        if key not in self.originals:
            try:
                self.originals[key] = open_all(question.pictures, whole)
            except BadImage:
                self.originals[key] = ()
        return self.originals[key]


def choose(sources: list[Any], count: int) -> list[Question]:
    """Questions at even distances over all sources together."""
    places = [(source, i) for source in sources for i in range(len(source))]
    picked = np.unique(np.linspace(0, len(places) - 1, min(count, len(places))).round().astype(int)) if places else ()
    return [question_of(*places[p]) for p in picked]
