"""What the crop does to single questions, from answers with it and with something else in its place."""

import math
from collections.abc import Sequence
from statistics import fmean
from typing import Any

from mgpo.errors import UserError
from mgpo.metrics.base import By, Row, RowMetric

CROP, NO_TOOLS = "crop", "no tools"


class CropEffect(RowMetric):
    """A share of questions by whether they are right with the crop and right without it.

    `update` takes the rows of `mgpo.evaluation.counterfactuals`: id, split, category, and by variant whether the
    answer was right.

    Args:
        against: The variant that stands for "without".
        by: One value for each split or category instead of one for all.
        options: torchmetrics' own.
    """

    plot_upper_bound = 1.0

    def __init__(self, against: str = NO_TOOLS, by: By | None = None, **options: Any) -> None:
        super().__init__(by, **options)
        self.against = against

    def as_row(self, item: Row) -> Row:
        """The fields of a row that this metric reads.

        Raises:
            UserError: If the question was not answered in both ways.
        """
        for variant in (CROP, self.against):
            if variant not in item:
                raise UserError(f"question {item['id']} was not answered with {variant!r}; it has {', '.join(item)}")
        return {key: item[key] for key in ("id", "split", "category", CROP, self.against)}

    def share(self, rows: Sequence[Row], crop: bool, without: bool) -> float:
        """The share of questions whose answers were right or wrong just so, in [0, 1]; NaN without questions.

        Args:
            rows: One for each question.
            crop: Whether the answer with the crop was right.
            without: Whether the answer with the other variant was right.
        """
        found = [(row[CROP], row[self.against]) == (crop, without) for row in rows]
        return fmean(found) if found else math.nan


class CropGain(CropEffect):
    """The share of questions that are right only with the crop, in [0, 1]; higher is better.

    Questions that are right, or wrong, both ways count as 0. CropGain - CropHarm is the drop in accuracy without it.
    """

    higher_is_better = True

    def value(self, rows: list[Row]) -> float:
        """The share of these questions that are right with the crop and wrong without it."""
        return self.share(rows, crop=True, without=False)


class CropHarm(CropEffect):
    """The share of questions that are right only without the crop, in [0, 1]; lower is better.

    Questions that are right, or wrong, both ways count as 0.
    """

    higher_is_better = False

    def value(self, rows: list[Row]) -> float:
        """The share of these questions that are wrong with the crop and right without it."""
        return self.share(rows, crop=False, without=True)
