"""Questions of a source of one's own: what can't be meant is told, with its number, before anything is learnt."""

from dataclasses import replace

import numpy as np
import pytest

from mgpo.data import DataError
from mgpo.data.base import check_splits, question_of
from mgpo.images import FilePicture
from mgpo.types import Question
from tests.conftest import noise_image

GOOD = Question("q", FilePicture("a.png"), "Which?", "A", choices=("red", "blue"), split="val")


class Listed:
    def __init__(self, *questions):
        self.questions = questions

    def __len__(self):
        return len(self.questions)

    def __getitem__(self, index):
        return self.questions[index]


BAD = {
    "a picture of question 1 is a str; give mgpo.images.FilePicture": dict(picture="a.png"),
    "a picture of question 1 is a PIL image": dict(picture=noise_image(8, 8, 0)),
    "a picture of question 1 is a ndarray": dict(picture=np.zeros((8, 8, 3))),
    "others of question 1 has to be a tuple, not a FilePicture": dict(others=FilePicture("b.png")),
    "a picture of question 1 is a bytes": dict(others=(b"",)),
    "choices of question 1 has to be a tuple, not a str": dict(choices="rb"),
    "accepted of question 1 has to be a tuple, not a str": dict(choices=(), accepted="a"),
    "choices of question 1 has to be a tuple, not a set": dict(choices={"red", "blue"}),
    "have to be texts": dict(choices=("red", 3)),
    "the answer of question 1 is 'C'; where there are choices it is the letter of one": dict(answer="C"),
    "the answer of question 1 is '{green}'; where there are choices": dict(answer="{green}"),
    "the answer of question 1 is 'red'; where there are choices": dict(answer="red", choices=["red", "red"]),
    "gives a NoneType as question 1, not a Question": None,
}


@pytest.mark.parametrize("said", BAD)
def test_a_question_that_cannot_be_meant_is_told(said):
    wrong = BAD[said]
    source = Listed(GOOD, replace(GOOD, **wrong) if wrong is not None else None)
    with pytest.raises(DataError, match=f"the source Listed.* {said}"):
        question_of(source, 1)


@pytest.mark.parametrize(("answer", "letter"), [("blue", "B"), ("A", "A"), ("AB", "AB"), ("", "")])
def test_the_text_of_a_choice_is_its_letter(answer, letter):
    """Several letters are for a reward of one's own."""
    assert question_of(Listed(replace(GOOD, answer=answer)), 0) == replace(GOOD, answer=letter)


def test_lists_and_nothing_are_taken_for_tuples():
    given = replace(GOOD, choices=["red", "blue"], accepted=None, others=[FilePicture("b.png")])
    assert question_of(Listed(given), 0) == replace(GOOD, others=(FilePicture("b.png"),))
    assert question_of(Listed(GOOD), 0) is GOOD
    several = replace(GOOD, choices=(), accepted={"red"})
    assert question_of(Listed(several), 0).accepted == ("red",)


def test_a_split_without_a_name_or_questions_is_refused():
    with pytest.raises(DataError, match=r"data\.val: the source Listed names no split"):
        check_splits("data.val", [Listed(GOOD), Listed(replace(GOOD, split=""))])
    with pytest.raises(DataError, match=r"data\.val: the source Listed has no questions; leave it out"):
        check_splits("data.val", [Listed()])
    check_splits("data.val", [Listed(GOOD)])
