"""Replies as models write them, with the answer that a careful reader takes from each."""

import json
from itertools import permutations
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mgpo.answers import choice_letter, extract, is_number, is_right

FIXTURES = Path(__file__).parents[1] / "fixtures"


def rows_of(name):
    return [json.loads(line) for line in (FIXTURES / name).read_text(encoding="utf-8").splitlines()]


ROWS = rows_of("replies.jsonl")
JUDGED = rows_of("judged.jsonl")  # with a right answer, and whether a person would call the reply right
FOOLING = rows_of("fooling.jsonl")  # the same, written to be misread
CHOICES = ("red", "blue", "green", "yellow")


def judged_right(row):
    choices = tuple(row["choices"])
    return is_right(extract(row["reply"], choices, row["truth"]), row["truth"], choices)


def understood(row):
    choices = tuple(row.get("choices", ()))
    answer = extract(row["reply"], choices)
    if choices:
        return (choice_letter(answer, choices) if answer is not None else None) == row["answer"]
    if row["answer"] is None or answer is None:
        return answer is row["answer"]
    return is_right(answer, row["answer"]) or is_number(answer, row["answer"])


def test_the_extractor_reads_what_a_careful_reader_reads():
    wrong = [row["reply"] for row in ROWS if not understood(row)]
    assert len(ROWS) >= 300
    assert len(wrong) <= 0.01 * len(ROWS), wrong


def test_nothing_is_read_into_replies_that_commit_to_nothing():
    silent = [row for row in ROWS if row["answer"] is None]
    assert len(silent) > 100
    assert all(understood(row) for row in silent)


@pytest.mark.parametrize("choices", [(), ("red", "blue", "a green car"), ("12", "7")])
@given(text=st.text(max_size=300))
def test_nothing_raises(choices, text):
    answer = extract(text, choices)
    assert answer is None or answer.strip()


@pytest.mark.parametrize(
    "piece",
    ["so ", "answer: ", "option (", "it is B ", "\\boxed{", "(A) ", "A", '"answer": "', "yes ", "<answer>", "-> "],
)
def test_long_replies_end(piece):
    extract(piece * 10_000, ("red", "blue"))
    extract(piece * 10_000)


def test_replies_are_judged_as_a_person_would():
    wrong = [row for row in JUDGED if judged_right(row) != row["right"]]
    assert len(JUDGED) > 600
    assert len(wrong) <= 0.01 * len(JUDGED), wrong


def test_no_wrong_reply_is_ever_right():
    """The reward is what is learnt from: a wrong reply that counts is worse than a right one that is missed."""
    wrong = [row for row in JUDGED if not row["right"]]
    assert len(wrong) > 120
    assert not [row for row in wrong if judged_right(row)]


def test_few_replies_that_were_written_to_be_misread_are():
    """A policy that is rewarded finds them: sums, suppositions, intents, several options in one box, yes/no."""
    wrong, right = ([row for row in FOOLING if row["right"] is kind] for kind in (False, True))
    taken, missed = sum(map(judged_right, wrong)), sum(not judged_right(row) for row in right)
    assert len(wrong) > 590 and taken <= 0.045 * len(wrong), taken
    assert len(right) > 510 and missed <= 0.22 * len(right), missed


@given(st.text(max_size=200).filter(lambda text: text.strip() and "think" not in text.lower()))
def test_a_reply_that_is_the_right_answer_is_right(text):
    assert is_right(extract(text, (), text), text)


@given(st.sampled_from([row["truth"] for row in JUDGED if not row["choices"]]))
def test_the_right_answer_is_right_however_it_is_announced(truth):
    for form in ("The answer is {}.", "\\boxed{{{}}}", "<answer>{}</answer>", "**Answer:** {}", "Final answer: {}"):
        assert is_right(extract(form.format(truth), (), truth), truth), form


@pytest.mark.parametrize("separator", [" ", ", ", " or ", " and ", "/", "\n", "; ", " | ", ""])
@pytest.mark.parametrize("wrap", ["{}", "\\boxed{{{}}}", "<answer>{}</answer>", "({})", "**{}**"])
def test_several_options_at_once_are_none(separator, wrap):
    for listed in [*permutations("ABCD"), *permutations("ABCD", 2)]:
        reply = wrap.format(separator.join(listed))
        assert choice_letter(extract(reply, CHOICES) or "", CHOICES) is None, reply
    for listed in permutations(CHOICES, 3):
        reply = wrap.format((separator or " ").join(listed))
        assert choice_letter(extract(reply, CHOICES) or "", CHOICES) is None, reply


@pytest.mark.parametrize(
    ("reply", "truth"),
    [
        ("\\boxed{right}. The opposite answer is left", "left"), ("Please answer yes", "yes"),
        ("I refuse to answer no", "no"), ("Is the answer yes", "yes"), ("Is the answer red", "red"),
        ("You asked me to answer no", "no"), ("<answer>blue</answer> The incorrect answer is red", "red"),
    ],
)  # fmt: skip
def test_a_right_answer_at_the_end_is_not_yet_announced(reply, truth):
    assert not is_right(extract(reply, (), truth), truth)
