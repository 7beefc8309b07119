"""Any table of multiple-choice questions."""

from collections.abc import Sequence
from typing import Any, ClassVar

from mgpo.answers import LETTERS
from mgpo.data.base import DataError
from mgpo.data.benchmarks.base import Benchmark
from mgpo.data.benchmarks.harness import first_letter, options
from mgpo.data.option_columns import choices_of, letter_of, split_choices
from mgpo.data.row_source import Row, check_choices, shown, text_of
from mgpo.types import Question


class MultipleChoice(Benchmark):
    """Multiple-choice questions under column names of one's own.

    Args:
        question_column: The question's text.
        answer_column: The right choice's letter or text.
        choice_columns: One column of a list, or one column for each choice; none where the choices stand behind the
            question, as "(A) red (B) blue".
        image_column: The image.
        category_column: The category, if any.
        id_column: The id, if any.
    """

    SPLIT = "multiple_choice"
    scored_as = "multiple_choice"
    harnesses: ClassVar = {"lmms-eval": first_letter, "VLMEvalKit": options}

    def __init__(
        self,
        question_column: str = "question",
        answer_column: str = "answer",
        choice_columns: Sequence[str] = ("choices",),
        image_column: str = "image",
        category_column: str | None = None,
        id_column: str | None = None,
        **options: Any,
    ) -> None:
        self.question_column, self.answer_column = question_column, answer_column
        self.choice_columns, self.image_columns = tuple(choice_columns), (image_column,)
        self.category_column, self.id_column = category_column, id_column
        named = [column for column in (category_column, id_column) if column is not None]
        self.columns = (question_column, answer_column, *self.choice_columns, *named)
        super().__init__(**options)

    def question(self, row: Row, number: int) -> Question:
        """The question with its choices, from the columns that are named.

        Raises:
            DataError: If the answer is not among the choices.
        """
        text, choices, labels = self._choices(row)
        answer = text_of(row, self.answer_column)
        letter = letter_of(answer, choices, labels)
        if letter is None:
            raise DataError(f"column {self.answer_column}: {shown(answer)} is not among the {len(choices)} choices")
        category = text_of(row, self.category_column) if self.category_column else ""
        name = row[self.id_column] if self.id_column else None
        return self.make(row, number, text, letter, choices, category, name=name)

    def _choices(self, row: Row) -> tuple[str, tuple[str, ...], tuple[str, ...]]:
        text = text_of(row, self.question_column)
        if not self.choice_columns:
            question, choices = split_choices(text)
            return question, choices, tuple(LETTERS[: len(choices)])
        if len(self.choice_columns) > 1:
            there = [column for column in self.choice_columns if row[column] not in (None, "")]
            choices = check_choices(self.choice_columns[0], [text_of(row, column) for column in there])
            return text, choices, tuple(letter for letter, name in zip(LETTERS, self.choice_columns) if name in there)
        column = next(iter(self.choice_columns))
        choices, labels = choices_of(column, row[column])
        return text, choices or check_choices(column, ()), labels
