"""HR-Bench (arXiv 2408.15556): 200 questions on 4K and 8K pictures, each asked with its choices in four orders."""

from collections.abc import Sequence
from typing import Any, ClassVar

from mgpo.answers import LETTERS
from mgpo.data.base import DataError
from mgpo.data.benchmarks.base import PAPER, Benchmark
from mgpo.data.benchmarks.harness import options
from mgpo.data.row_source import Row, check_choices, shown, text_of
from mgpo.metrics.record import Record
from mgpo.metrics.score import Score, share
from mgpo.types import Question


class HRBench4K(Benchmark):
    """The 800 rows on 4K pictures; `category` is single or cross, `part` the cycle.

    Accuracies are taken in each cycle and averaged.
    """

    HUB = "DreamMr/HR-Bench"
    CONFIG = "hrbench_version_split"
    HUB_SPLIT = "hrbench_4k"
    SPLIT = "hrbench_4k"
    SIZE = 800
    columns = ("question", "answer", "category", "cycle_category", "A", "B")
    extra = ("C", "D", "index")
    scored_as = "hrbench"
    harnesses: ClassVar = {"VLMEvalKit": options}  # lmms-eval scores it by a judge model, which has no rule
    title = "HR-4K"
    published_in = PAPER
    published: ClassVar = {
        "Qwen2.5-VL-7B + GRPO": 69.8,
        "Qwen2.5-VL-7B + MGPO": 74.2,
        "Qwen2.5-VL-3B + GRPO": 67.9,
        "Qwen2.5-VL-3B + MGPO": 70.9,
    }

    def question(self, row: Row, number: int) -> Question:
        """The question with the choices that the row has, of A to D."""
        there = [letter for letter in LETTERS[:4] if _says(row.get(letter))]
        choices, answer = check_choices("A", [text_of(row, letter) for letter in there]), text_of(row, "answer").upper()
        if answer not in there:
            raise DataError(f"column answer: {shown(answer)} is not among the {len(choices)} choices")
        answer = LETTERS[there.index(answer)]
        return self.make(
            row, number, text_of(row, "question"), answer, choices,
            text_of(row, "category"), text_of(row, "cycle_category"), row.get("index"),
        )  # fmt: skip

    @staticmethod
    def score(records: Sequence[Record]) -> Score:
        """Over all questions, of each category (single, cross), and of each cycle."""
        cycles = sorted({record.part for record in records})
        categories = sorted({record.category for record in records})
        parts = {name: over_cycles([r for r in records if r.category == name]) for name in categories}
        parts |= {f"cycle {cycle}": share(r.right for r in records if r.part == cycle) for cycle in cycles}
        return Score(len(records), over_cycles(records), parts)


class HRBench8K(HRBench4K):
    """The same questions on the pictures in 8K."""

    HUB_SPLIT = "hrbench_8k"
    SPLIT = "hrbench_8k"
    title = "HR-8K"
    published: ClassVar = {
        "Qwen2.5-VL-7B + GRPO": 66.3,
        "Qwen2.5-VL-7B + MGPO": 71.2,
        "Qwen2.5-VL-3B + GRPO": 64.9,
        "Qwen2.5-VL-3B + MGPO": 68.1,
    }


def over_cycles(records: Sequence[Record]) -> float | None:
    """The mean of the cycles' accuracies: a cycle counts alike however many of its rows could be used."""
    cycles = {record.part for record in records}
    accuracies = [share(r.right for r in records if r.part == cycle) for cycle in cycles]
    return share(value for value in accuracies if value is not None)


def _says(value: Any) -> bool:
    """Whether there is such a choice: where there is none, tables have an empty text, None or a NaN."""
    return value is not None and str(value).strip() not in ("", "nan")
