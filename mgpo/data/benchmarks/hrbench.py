"""HR-Bench (arXiv 2408.15556): 200 questions on 4K and 8K pictures, each asked with its choices in four orders."""

from typing import Any

from mgpo.answers import LETTERS
from mgpo.data.benchmarks.base import Benchmark
from mgpo.data.row_source import Row, check_choices, text_of
from mgpo.types import Question


class HRBench4K(Benchmark):
    """800 rows; `category` is single or cross, `part` the cycle: accuracies are taken in each and averaged."""

    HUB = "DreamMr/HR-Bench"
    CONFIG = "hrbench_version_split"
    HUB_SPLIT = "hrbench_4k"
    SPLIT = "hrbench_4k"
    SIZE = 800
    columns = ("question", "answer", "category", "cycle_category", "A", "B")
    extra = ("C", "D", "index")
    score = "hrbench"
    title = "HR-4K"

    def question(self, row: Row, number: int) -> Question:
        there = [letter for letter in LETTERS[:4] if _says(row.get(letter))]
        choices = check_choices("A", [text_of(row, letter) for letter in there])
        return self.make(
            row, number, text_of(row, "question"), text_of(row, "answer").upper(), choices,
            text_of(row, "category"), text_of(row, "cycle_category"), row.get("index"),
        )  # fmt: skip


class HRBench8K(HRBench4K):
    """The same questions on the pictures in 8K."""

    HUB_SPLIT = "hrbench_8k"
    SPLIT = "hrbench_8k"
    title = "HR-8K"


def _says(value: Any) -> bool:
    """Whether there is such a choice: where there is none, tables have an empty text, None or a NaN."""
    return value is not None and str(value).strip() not in ("", "nan")
