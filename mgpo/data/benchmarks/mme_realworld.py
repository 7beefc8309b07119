"""MME-RealWorld (arXiv 2408.13257), its Lite part, and what is left without that: the paper's training set."""

import hashlib
from collections.abc import Iterator, Sequence
from typing import Any, ClassVar

from mgpo.data.benchmarks.base import PAPER, Benchmark
from mgpo.data.benchmarks.harness import first_letter
from mgpo.data.option_columns import lettered
from mgpo.data.row_source import Row, text_of
from mgpo.images.decoding import BadImage
from mgpo.metrics.record import Record
from mgpo.metrics.score import Score, share
from mgpo.types import Question

TASKS = {
    "OCR": "OCR with Complex Context",
    "RS": "Remote Sensing",
    "DT": "Diagram and Table",
    "MO": "Monitoring",
    "AD": "Autonomous_Driving",
}
ROWS = {"Perception": ("OCR", "RS", "DT", "MO", "AD"), "Reasoning": ("OCR", "DT", "MO", "AD")}


class MMERealWorld(Benchmark):
    """Questions with five choices, of which E ("not in the image") counts like the others.

    `category` is as published ("Perception/OCR with Complex Context"), `part` the l2-category. With `without`,
    the questions of another source are left out: 23,609 less the 1,919 of Lite are the 21,690 of the paper.

    Args:
        without: Questions to leave out, known by index, text and choices, or else by text, choices and image file.
    """

    HUB = "yifanzhang114/MME-RealWorld-Lmms-eval"
    HUB_SPLIT = "train"
    SPLIT = "mme_realworld"
    SIZE = 23_609
    columns = ("question", "multi-choice options", "answer", "category")
    extra = ("l2-category", "index")
    image_columns = ("bytes", "image")
    scored_as = "mme_realworld"
    harnesses: ClassVar = {"lmms-eval": first_letter, "VLMEvalKit": first_letter}
    title = "MME-RW"

    def __init__(self, without: Benchmark | None = None, **options: Any) -> None:
        super().__init__(**options)
        if without is not None:
            left = set(map(id, left_out(self.questions, without.questions)))
            self.questions = [question for question in self.questions if id(question) not in left]
            self.total -= len(left)
            if (found := len(left)) != len(without):
                self.notes.append(f"{found} of the {len(without)} questions of {without.name} are in it and left out")

    def question(self, row: Row, number: int) -> Question:
        """The question with its five choices; `part` is the finer category."""
        choices = lettered("multi-choice options", row["multi-choice options"])
        answer, part = text_of(row, "answer").upper(), str(row.get("l2-category") or "")
        text, category = text_of(row, "question"), text_of(row, "category")
        return self.make(row, number, text, answer, choices, category, part, row.get("index"))

    @staticmethod
    def score(records: Sequence[Record]) -> Score:
        """The rows that its paper prints, means over questions: overall, of Perception and Reasoning, and of each task
        in them."""
        parts: dict[str, float | None] = {}
        for side, tasks in ROWS.items():
            parts[side] = share(r.right for r in records if r.category.partition("/")[0] == side)
            for task in tasks:
                names = (f"{side}/{task}", f"{side}/{TASKS[task]}")
                parts[f"{side} {task}"] = share(r.right for r in records if r.category in names)
        return Score(len(records), share(r.right for r in records), parts)


class MMERealWorldLite(MMERealWorld):
    """The 1,919 questions of MME-RealWorld."""

    HUB = "yifanzhang114/MME-RealWorld-lite-lmms-eval"
    SPLIT = "mme_realworld_lite"
    SIZE = 1_919
    title = "MME-RW-Lite"
    published_in = PAPER
    published: ClassVar = {
        "Qwen2.5-VL-7B": 46.1,
        "Qwen2.5-VL-7B + SFT": 58.7,
        "Qwen2.5-VL-7B + GRPO": 55.1,
        "Qwen2.5-VL-7B + MGPO": 60.5,
        "Qwen2.5-VL-3B + GRPO": 50.3,
        "Qwen2.5-VL-3B + MGPO": 52.2,
        "GPT-4o": 45.2,
    }


def left_out(questions: list[Question], others: list[Question]) -> Iterator[Question]:
    """Those of `questions` that are among the others; images are read only for those not known by their index."""
    indices = {_known(other) for other in others}
    found = {_known(question) for question in questions} & indices
    images: dict[tuple[str, tuple[str, ...]], set[str]] = {}
    for other in others:
        if _known(other) not in found:
            images.setdefault((other.text, other.choices), set()).add(_digest(other))
    for question in questions:
        same_text = images.get((question.text, question.choices), ())
        if _known(question) in found or (same_text and _digest(question) in same_text):
            yield question


def _known(question: Question) -> tuple[str, str, tuple[str, ...]]:
    """The index under which a question is published, with its text and choices."""
    return question.id.removeprefix(f"{question.split}-"), question.text, question.choices


def _digest(question: Question) -> str:
    """Of the image file; of the question's id where that can't be read, which fits no other."""
    try:
        return hashlib.sha256(question.picture.read()).hexdigest()  # pyright: ignore[reportAttributeAccessIssue]
    except BadImage:
        return question.id
