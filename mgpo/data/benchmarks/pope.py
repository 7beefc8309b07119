"""POPE (arXiv 2305.10355): is a thing in the picture or not."""

from mgpo.data.base import DataError
from mgpo.data.benchmarks.base import Benchmark
from mgpo.data.row_source import Row, shown, text_of
from mgpo.types import Question


class POPE(Benchmark):
    """9,000 questions to be answered yes or no; `category` (random, popular, adversarial) says how what is not
    there was chosen."""

    HUB = "lmms-lab/POPE"
    SPLIT = "pope"
    SIZE = 9000
    columns = ("question", "answer", "category")
    extra = ("id", "question_id")
    score = "pope"
    title = "POPE"

    def question(self, row: Row, number: int) -> Question:
        answer, category = text_of(row, "answer").lower(), text_of(row, "category")
        if answer not in ("yes", "no"):
            raise DataError(f"column answer: yes or no is needed, not {shown(answer)}")
        name = row.get("id") if row.get("question_id") is None else f"{category}-{row['question_id']}"
        return self.make(row, number, text_of(row, "question"), answer, (), category, name=name)
