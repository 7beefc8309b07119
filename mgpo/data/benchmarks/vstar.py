"""V* Bench (arXiv 2312.14135): small things in large pictures."""

from typing import ClassVar

from mgpo.data.benchmarks.base import PAPER, Benchmark
from mgpo.data.benchmarks.harness import options, vstar_forms
from mgpo.data.option_columns import split_choices
from mgpo.data.row_source import Row, text_of
from mgpo.types import Question


class VStar(Benchmark):
    """The 191 multiple-choice questions, of which 115 on attributes and 76 on relative positions.

    The choices stand inside `text` and are taken out of it, so that turn 1 can ask without them. The raw
    repository (craigwu/vstar_bench) is read through its test_questions.jsonl.
    """

    HUB = "lmms-lab-encoder/vstar-bench"
    SPLIT = "vstar"
    SIZE = 191
    columns = ("text", "label", "category")
    extra = ("question_id",)
    scored_as = "vstar"
    harnesses: ClassVar = {"lmms-eval": vstar_forms, "VLMEvalKit": options}
    title = "V*"
    published_in = PAPER
    published: ClassVar = {
        "Qwen2.5-VL-7B": 58.6,
        "Qwen2.5-VL-7B + SFT": 71.7,
        "Qwen2.5-VL-7B + GRPO": 71.2,
        "Qwen2.5-VL-7B + MGPO": 76.4,
        "Qwen2.5-VL-3B + GRPO": 66.5,
        "Qwen2.5-VL-3B + MGPO": 67.0,
        "o1": 69.7,
        "GPT-4o": 73.9,
    }

    def question(self, row: Row, number: int) -> Question:
        """The question, with the choices taken out of its text."""
        text, choices = split_choices(text_of(row, "text"))
        answer, category = text_of(row, "label").upper(), text_of(row, "category")
        return self.make(row, number, text, answer, choices, category, name=row.get("question_id"))
