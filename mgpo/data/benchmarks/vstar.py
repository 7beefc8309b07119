"""V* Bench (arXiv 2312.14135): small things in large pictures."""

from mgpo.data.benchmarks.base import Benchmark
from mgpo.data.benchmarks.option_columns import split_choices
from mgpo.data.row_source import Row, text_of
from mgpo.types import Question


class VStar(Benchmark):
    """191 multiple-choice questions, of which 115 on attributes and 76 on relative positions.

    The choices stand inside `text` and are taken out of it, so that turn 1 can ask without them. The raw
    repository (craigwu/vstar_bench) is read through its test_questions.jsonl.
    """

    HUB = "lmms-lab-encoder/vstar-bench"
    SPLIT = "vstar"
    SIZE = 191
    columns = ("text", "label", "category")
    extra = ("question_id",)
    score = "vstar"
    title = "V*"

    def question(self, row: Row, number: int) -> Question:
        text, choices = split_choices(text_of(row, "text"))
        answer, category = text_of(row, "label").upper(), text_of(row, "category")
        return self.make(row, number, text, answer, choices, category, name=row.get("question_id"))
