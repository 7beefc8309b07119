"""Pixmo-Count (arXiv 2409.17146): how many things of a kind a picture shows."""

from mgpo.data.base import DataError
from mgpo.data.benchmarks.base import Benchmark
from mgpo.data.row_source import Row, shown, text_of
from mgpo.types import Question

QUESTION = "How many {} are there in the picture? Answer with a number."


class PixmoCount(Benchmark):
    """Pictures behind addresses, checked by the sha256 of their files. The points are never read."""

    HUB = "allenai/pixmo-count"
    SPLIT = "pixmo_count"
    columns = ("count", "label")
    extra = ("image_sha256",)
    image_columns = ("image_url", "image")
    score = "counting"
    title = "Pixmo-Count"

    def question(self, row: Row, number: int) -> Question:
        return self.make(row, number, QUESTION.format(text_of(row, "label")), count_of(row))


def count_of(row: Row) -> str:
    """The column `count`. Raises DataError where it is no whole number from 0."""
    text = text_of(row, "count")
    if not text.isdecimal():
        raise DataError(f"column count: a whole number is needed, not {shown(text)}")
    return text
