"""Choices and answers in the forms in which people write them, and what is not plain and therefore not guessed."""

import datasets
import pytest

from mgpo.answers import LETTERS
from mgpo.data.base import DataError
from mgpo.data.benchmarks import MultipleChoice
from mgpo.data.files import Files
from mgpo.data.unlabelled import unlabelled_questions
from mgpo.rewards import ExactAnswer, NumericAnswer
from tests.data.test_own_data import ROW, files, table
from tests.helpers.published import png, write_jsonl

CHOICES = {**ROW, "choices": ["red", "blue"], "answer": "blue"}


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "0.png").write_bytes(png(0))
    return tmp_path


@pytest.mark.parametrize(
    ("choices", "answer", "letter"),
    [
        (["red", "blue"], "blue", "B"), (["red", "blue"], "(b)", "B"), (["A. red", "B. blue"], "blue", "B"),
        (["(A) red", "(B) blue"], "B", "B"), ({"A": "red", "B": "blue"}, "B", "B"),
        ({"B": "blue", "A": "red"}, "B", "B"),
        ([{"label": "A", "text": "red"}, {"label": "B", "text": "blue"}], "B", "B"),
        ({"A": "red", "B": "blue", "C": None}, "blue", "B"), ({"1": "red", "2": "blue"}, "2", "B"),
        ({"1": "red", "2": "blue"}, 2, "B"), ({"label": ["A", "B"], "text": ["red", "blue"]}, "B", "B"),
        ({"text": ["red", "blue"], "label": ["1", "2"]}, "2", "B"), ('["red", "blue"]', "blue", "B"),
        ("['red', 'blue']", "B", "B"), ('{"A": "red", "B": "blue"}', "blue", "B"), ("A. red\nB. blue", "B", "B"),
        ([1, 2, 3], 2, "B"), ([1, 2, 3], "2", "B"), ([1.5, 2.0], 2, "B"), ("[1, 2, 3]", 2, "B"),
        (["red", "blue"], "<answer>blue</answer>", "B"), (["red", "blue"], " <Answer> B </Answer>", "B"),
        ([5, 7], 7.0, "B"),
        ({"A": "red", "C": "blue", "D": "green", "B": None}, "C", "B"),
        ({"A": "red", "C": "blue", "D": "green"}, "(c)", "B"),
        ({"A": "red", "C": "blue", "D": "green"}, "C. blue", "B"), ({"optionA": "red", "optionB": "blue"}, "B", "B"),
        ({"label": ["A", "B", "C"], "text": ["A", "1", "B"]}, "B", "B"), (["(A) B", "(B) blue", "(C) A"], "B", "B"),
        ({"1": "2.5", "2": "2.0", "3": "7"}, "2.0", "B"), (["K", "T", "A"], "T", "B"),
        (["red", "blue"], ["blue"], "B"), (["red", "blue"], ["B", "blue"], "B"), (["2", "1"], 1, "B"),
    ],
)  # fmt: skip
def test_choices_and_answers_in_every_form(folder, choices, answer, letter):
    source = files(folder, {**ROW, "choices": choices, "answer": answer})
    assert source[0].answer == letter
    assert source[0].choices[1] in ("blue", "2", "2.0", "7", "1", "T")
    (question,) = unlabelled_questions(str(folder / "q.jsonl"))
    assert (question.answer, question.choices) == (letter, source[0].choices)


@pytest.mark.parametrize(
    ("choices", "answer"), [(["red", "blue"], "blue"), ([1, 2], 2), ({"A": "red", "B": "blue"}, "B")]
)
def test_choices_in_every_form_in_tables(folder, choices, answer):
    table(choices=choices).remove_columns("answer").add_column("answer", [answer] * 3).to_parquet(
        str(folder / "q.parquet")
    )
    assert [q.answer for q in Files(str(folder / "q.parquet")).questions] == ["B"] * 3
    benchmark = MultipleChoice(path=str(folder / "q.parquet"))
    assert benchmark[0].choices == Files(str(folder / "q.parquet"))[0].choices and benchmark[0].answer == "B"


@pytest.mark.parametrize(
    ("choices", "answer"),
    [
        (["red", "blue"], 1), (["red", "blue"], "2"), ({"1": "2", "2": "3"}, "2"), ({"A": "red", "C": "blue"}, "green"),
        (["red", "blue"], ["red", "blue"]), ({"A": ["red"]}, "A"), ([True, False], True),
        ({"label": ["A"], "text": []}, "A"), ("[" * 5000, "A"), ({"A": "red"}, "A"), (["K", "B", "A", "T"], "A"),
        (["C", "A", "D", "B"], "a"), (["A. red", "C. blue"], "B"),
        ({"A": "red", "C": "blue", "D": "green"}, "C. green"), ({"1": "2.5 m", "2": "1.5 m"}, "2.5"),
    ],
)  # fmt: skip
def test_what_is_not_plain_is_not_guessed(folder, choices, answer):
    with pytest.raises(DataError, match=r"row 1, column (choices|answer)") as caught:
        files(folder, {**ROW, "choices": choices, "answer": answer})
    assert len(str(caught.value)) <= 600


@pytest.mark.parametrize(
    ("base", "answer"),
    [(0, 1), (0, "1"), (1, 2), (1, "2"), (1, "<answer> 2 </answer>"), (1, 2.0), (1, "blue"), (0, "B")],
)
def test_answers_that_count_choices_say_from_where(folder, base, answer):
    assert files(folder, {**CHOICES, "answer": answer}, index_base=base)[0].answer == "B"
    with pytest.raises(DataError, match="not among the 2 choices"):
        files(folder, {**CHOICES, "answer": base + 2}, index_base=base)
    with pytest.raises(DataError, match=r"say from 0 or 1 with index_base"):
        files(folder, {**CHOICES, "answer": "1"})


def test_a_letter_that_is_another_choice_s_text_says_how_to_be_plain(folder):
    with pytest.raises(DataError, match="'A' is the place of one and the text of another of the 3 choices"):
        files(folder, {**ROW, "choices": ["K", "B", "A"], "answer": "A"})


def test_a_right_answer_may_be_tagged_as_replies_are(folder):
    question = files(folder, {**ROW, "answer": "<answer> red </answer>"})[0]
    assert [ExactAnswer()(answer, question) for answer in ("red", "blue")] == [1, 0]


def test_names_of_classes_are_texts_not_numbers(folder):
    made = table().remove_columns("answer").add_column("answer", [1, 0, 1])
    made.cast_column("answer", datasets.ClassLabel(names=["no", "yes"])).to_parquet(str(folder / "q.parquet"))
    assert [q.answer for q in Files(str(folder / "q.parquet")).questions] == ["yes", "no", "yes"]


def test_several_answers_are_accepted(folder):
    question = files(folder, {**ROW, "answer": ["EXIT", "way out", "EXIT", 12]})[0]
    assert (question.answer, question.accepted) == ("EXIT", ("way out", "12"))
    right = [ExactAnswer()(answer, question) for answer in ("exit", "Way out", "12.0", "entry", None)]
    assert right == [1, 1, 1, 0, 0]
    assert NumericAnswer(absolute=1)("about 13 doors", question) == 1
    for nonsense in ([], [10, 20, 110, 120], [""], [["EXIT"]], [None]):
        with pytest.raises(DataError, match="row 1, column answer"):
            files(folder, {**ROW, "answer": nonsense})


@pytest.mark.parametrize("answer", ["C", "(c)", "C. blue"])
def test_a_letter_is_that_of_its_choice_where_letters_are_left_out(folder, answer):
    """By its place C would be the third of them."""
    question = files(folder, {**ROW, "choices": ["A. red", "C. blue", "D. green"], "answer": answer})[0]
    assert question.choices[LETTERS.index(question.answer)] == "C. blue"
    rows = [{**ROW, "A": "red", "B": None, "C": "blue", "D": "green", "answer": answer}]
    source = MultipleChoice(choice_columns=["A", "B", "C", "D"], path=str(write_jsonl(folder / "m.jsonl", rows)))
    assert source[0].choices[LETTERS.index(source[0].answer)] == "blue"


@pytest.mark.parametrize(
    "answer",
    ["Option B", "[B]", "**B**", "Answer: B", "B - blue", "B blue", "\\boxed{B}", "The answer is B", "B. blue car"],
)
@pytest.mark.parametrize("choices", [{"A": "red", "B": "blue"}, ["A. red", "B. blue"], ["red", "blue"]])
def test_a_letter_may_be_written_in_many_ways(folder, choices, answer):
    assert files(folder, {**ROW, "choices": choices, "answer": answer})[0].answer == "B"
