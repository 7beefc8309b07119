"""POPE (arXiv 2305.10355): is a thing in the picture or not."""

import re
from collections.abc import Sequence
from typing import ClassVar

from mgpo.answers import normalise
from mgpo.data.base import DataError
from mgpo.data.benchmarks.base import PAPER, Benchmark
from mgpo.data.benchmarks.harness import whole_reply, yes_or_no
from mgpo.data.row_source import Row, shown, text_of
from mgpo.metrics.record import Record
from mgpo.metrics.score import Score, share
from mgpo.types import Question


class POPE(Benchmark):
    """The 9,000 questions to be answered yes or no, by `category`: random, popular, adversarial.

    That says how what is not there was chosen.
    """

    HUB = "lmms-lab/POPE"
    SPLIT = "pope"
    SIZE = 9000
    columns = ("question", "answer", "category")
    extra = ("id", "question_id")
    scored_as = "pope"
    harnesses: ClassVar = {"lmms-eval": whole_reply, "VLMEvalKit": yes_or_no}
    title = "POPE"
    published_in = PAPER
    published: ClassVar = {
        "Qwen2.5-VL-7B + GRPO": 84.5,
        "Qwen2.5-VL-7B + MGPO": 86.1,
        "Qwen2.5-VL-3B + GRPO": 82.5,
        "Qwen2.5-VL-3B + MGPO": 83.2,
    }

    def question(self, row: Row, number: int) -> Question:
        """The question, whose answer is yes or no. Raises DataError for any other."""
        answer, category = text_of(row, "answer").lower(), text_of(row, "category")
        if answer not in ("yes", "no"):
            raise DataError(f"column answer: yes or no is needed, not {shown(answer)}")
        name = row.get("id") if row.get("question_id") is None else f"{category}-{row['question_id']}"
        return self.make(row, number, text_of(row, "question"), answer, (), category, name=name)

    @staticmethod
    def right(record: Record) -> bool:
        """By the yes or no that the answer begins with, whatever the reward made of it."""
        return says(record.answer) == record.truth

    @staticmethod
    def score(records: Sequence[Record]) -> Score:
        """Accuracy, F1, precision, recall, with yes as the positive class, and the share of yes; overall and by
        category. The value is the accuracy."""
        parts = dict(_figures(records))
        for name in sorted({record.category for record in records}):
            figures = _figures([record for record in records if record.category == name])
            parts |= {f"{name} {figure}": value for figure, value in figures.items()}
        return Score(len(records), parts["accuracy"], parts)


def says(answer: str | None) -> str | None:
    """Yes or no, where an answer begins with it."""
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
