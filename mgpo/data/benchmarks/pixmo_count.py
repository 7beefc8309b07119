"""Pixmo-Count (arXiv 2409.17146): how many things of a kind a picture shows."""

from typing import ClassVar

from mgpo.data.benchmarks.base import PAPER, Benchmark
from mgpo.data.benchmarks.counting import QUESTION, count_of, counting
from mgpo.data.row_source import Row, text_of
from mgpo.types import Question


class PixmoCount(Benchmark):
    """Pictures behind addresses, checked by the sha256 of their files. The points are never read."""

    HUB = "allenai/pixmo-count"
    SPLIT = "pixmo_count"
    columns = ("count", "label")
    extra = ("image_sha256",)
    image_columns = ("image_url", "image")
    score = staticmethod(counting)
    scored_as = "counting"
    title = "Pixmo-Count"
    published_in = PAPER
    published: ClassVar = {
        "counting: Qwen2.5-VL-7B": 13.0,
        "counting: + SFT": 24.1,
        "counting: + MGPO, accuracy reward": 35.0,
        "counting: + MGPO, accuracy and point reward": 34.9,
    }

    def question(self, row: Row, number: int) -> Question:
        """Asks how many things of the row's label there are."""
        return self.make(row, number, QUESTION.format(text_of(row, "label")), count_of(row))
