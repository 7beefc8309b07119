"""Choices that stand in the question's text: taken out where it is plain that they are choices, else left alone."""

import pytest

from mgpo.data.files import Files
from mgpo.data.option_columns import find_choices, split_choices
from mgpo.data.unlabelled import unlabelled_questions
from tests.conftest import noise_image
from tests.helpers.published import write_jsonl

FOUR = ("red", "light blue", "green", "white")
TEXTS = [
    "{q}\n(A) red\n(B) light blue\n(C) green\n(D) white\nAnswer with the option's letter.",
    "{q}\n(A) red\n(B) light blue\n(C) green\n(D) white", "{q} (A) red (B) light blue (C) green (D) white",
    "{q}\nA. red\nB. light blue\nC. green\nD. white", "{q}\nA) red\nB) light blue\nC) green\nD) white\n",
    "{q}\nA: red\nB: light blue\nC: green\nD: white\nPlease answer with only the letter of the correct option.",
    "{q} Options: A. red B. light blue C. green D. white", "{q}\nOptions:\nA. red\nB. light blue\nC. green\nD. white",
    "{q}\nChoices: (A) red (B) light blue (C) green (D) white Answer with the option's letter directly.",
    "{q}\r\n(A) red\r\n(B) light blue\r\n(C) green\r\n(D) white",
    "{q}\n- A. red\n- B. light blue\n- C. green\n- D. white",
    "{q}\n(a) red\n(b) light blue\n(c) green\n(d) white",
    "{q}\nOption A. red\nOption B. light blue\nOption C. green\nOption D. white",
    "{q}\n  A. red\n  B. light\n blue\n  C. green\n  D. white\n\nAnswer:",
    "{q}\n（A）red\n（B）light blue\n（C）green\n（D）white",
    "{q}\nAnswer choices: A) red B) light blue C) green D) white",
    "{q}\n(A) red\n(B) light blue\n(C) green\n(D) white\nSelect the best answer.",
]  # fmt: skip


@pytest.fixture
def folder(tmp_path):
    noise_image(32, 32).save(tmp_path / "a.png")
    return tmp_path


def files(folder, *rows):
    return Files(str(write_jsonl(folder / "q.jsonl", [{"image": "a.png", **row} for row in rows])))


@pytest.mark.parametrize("text", TEXTS)
@pytest.mark.parametrize("answer", ["B", "(B)", "light blue", "B. light blue"])
def test_they_are_shown_as_choices(folder, text, answer):
    question = "Which colour is the box?"
    source = files(folder, {"question": text.format(q=question), "answer": answer})
    assert (source[0].text, source[0].choices, source[0].answer) == (question, FOUR, "B")
    assert "1 rows had their choices in the question" in source.complaint()
    (unknown,) = unlabelled_questions(
        str(write_jsonl(folder / "a.jsonl", [{"image": "a.png", "question": text.format(q=question)}]))
    )
    assert (unknown.text, unknown.choices, unknown.answer) == (question, FOUR, "")


def test_they_are_not_shown_twice(folder):
    text = TEXTS[0].format(q="Which?")
    source = files(folder, {"question": text, "choices": FOUR, "answer": "B"})
    assert (source[0].text, source[0].choices, source[0].answer) == ("Which?", FOUR, "B")
    source = files(folder, {"question": text, "choices": ["x", "y"], "answer": "B"})
    assert (source[0].text, source[0].choices) == (text, ("x", "y"))


@pytest.mark.parametrize(
    "text",
    ["Is (A) or (B) larger?", "Which of the marks (A), (B) and (C) is red?", "Is it by J. A. Smith or B. Jones?",
     "Which letter stands on the red mark?", "Look at the picture. (A) shows a dog. (B) shows a cat. Which is larger?",
     "What is vitamin A: a fat?", "Section A. What is B. about?", "(A) red", "What does the sign (A) say?", "", "A",
     "A. b",
     "Which is larger: (A) or (B)?", "What is on the sign?\n(A) red", "Read: A. M. to B. M.?"],
)  # fmt: skip
def test_what_is_no_list_of_choices_is_left_alone(text):
    assert find_choices(text) is None


def test_what_follows_them_stays_in_the_question():
    found = find_choices("Here are signs:\n(A) EXIT\n(B) WAY OUT\nWhich of them is on the left?")
    assert found == ("Here are signs:\nWhich of them is on the left?", ("EXIT", "WAY OUT"))


def test_an_answer_that_is_none_of_them_leaves_the_question_as_it_is(folder):
    text = TEXTS[1].format(q="Which?")
    source = files(folder, {"question": text, "answer": "42"}, {"question": text, "answer": "E"})
    assert [q.text for q in source.questions] == [text, text] and not source[0].choices
    assert "1 rows have a letter as answer but no choices" in source.complaint()


def test_a_letter_that_is_read_is_no_choice(folder):
    assert files(folder, {"question": "Which letter is on the sign?", "answer": "B"}).complaint() is None


@pytest.mark.parametrize("text", TEXTS[:10])
def test_the_benchmarks_split_takes_the_same_forms(text):
    text = text.format(q="Which colour is the box?")
    question, choices = split_choices(text.replace("light blue", "blue"))
    assert (question, choices[:2], len(choices)) == ("Which colour is the box?", ("red", "blue"), 4)


def test_a_long_text_takes_no_time(folder):
    for part in ("(A) ", "A. ", "\n- A. b", " ", "Options: ", "(A) x (B) y ", "answer option "):
        text = part * (200_000 // len(part))
        assert files(folder, {"question": f"{text}?", "answer": "B"})[0].choices == ()
