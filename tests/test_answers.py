import pytest
from hypothesis import given
from hypothesis import strategies as st

from mgpo.answers import choice_letter, extract, is_right, normalise

CHOICES = ("red", "blue", "a green car", "none of these")


@pytest.mark.parametrize(
    ("reply", "answer"),
    [
        (r"\boxed{K}", "K"),
        (r"First \boxed{A}, no: \boxed{B}.", "B"),
        (r"\boxed{\text{two}}", r"\text{two}"),
        (r"\boxed{A} and \boxed{unfinished", "A"),
        ("<answer> 12 </answer>", "12"),
        ("So the answer is (B).", "(B)"),
        ("Answer: seven\nbecause", "seven"),
        ("B", "B"),
        ("(C).", "C"),
        ("Based on the picture, it is hard to say.", None),
        ("", None),
        (r"\boxed{}", None),
    ],
)
def test_the_last_commitment(reply, answer):
    assert extract(reply) == answer


@pytest.mark.parametrize(
    ("answer", "letter"),
    [
        ("B", "B"),
        ("(b)", "B"),
        ("B. blue", "B"),
        ("blue", "B"),
        ("A green car", "C"),
        ("A dog", None),
        ("A because it is red", "A"),
        ("B blue or so", "B"),
        ("A, of course", "A"),
        ("E", None),
        ("Based on", None),
    ],
)
def test_choices(answer, letter):
    assert choice_letter(answer, CHOICES) == letter


@pytest.mark.parametrize(
    ("answer", "letter"), [("E", "E"), ("(a)", "A"), ("C.", "C"), ("K", "B"), ("A. E", "A"), ("(C) A", "C")]
)
def test_a_letter_alone_is_an_option_even_where_it_is_the_text_of_another(answer, letter):
    assert choice_letter(answer, ("E", "K", "A", "C", "none of these")) == letter


@pytest.mark.parametrize(
    ("answer", "truth", "right"),
    [("k", "K", True), ("7.0", "7", True), ("1,200", "1200", True), (None, "K", False), ("seven", "7", False),
     (r"\text{KP}", "kp", True), ("K P", "KP", False), ("inf", "K", False),
     ("1,2", "12", False), ("1,234,567", "1234567", True), ("3,4", "34", False)],
)  # fmt: skip
def test_short_answers(answer, truth, right):
    assert is_right(answer, truth) is right


def test_an_option_is_right_by_letter_or_text():
    assert is_right("(B)", "B", CHOICES)
    assert is_right("blue", "B", CHOICES)
    assert not is_right("red", "B", CHOICES)


@given(st.text(max_size=500))
def test_nothing_raises(text):
    answer = extract(text)
    is_right(answer, "7")
    is_right(answer, "B", CHOICES)
    normalise(text)


def test_long_replies_take_no_time():
    assert extract("\\boxed{" * 20_000) is None


@pytest.mark.parametrize(
    ("reply", "answer"),
    [
        (r"\boxed{A}. No, wait: the answer is (B).", "(B)"),
        (r"\boxed{B}. The answer is clear.", "B"),
        (r"The answer is \boxed{C}", "C"),
        (r"<answer>A</answer>, so \boxed{D}", "D"),
        (r"\boxed{D} <answer>A</answer>", "A"),
        (r"The answer is seven. The answer is based on the sign.", "based on the sign"),
        ("The answer is B.\nThe answer is based on the sign.", "B"),
        (r"\boxed{7} and the answer is 8.", "8"),
    ],
)
def test_what_comes_last_counts(reply, answer):
    assert extract(reply) == answer
