"""Replies as models write them, with the answer that a careful reader takes from each."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mgpo.answers import choice_letter, extract, is_number, is_right

FILE = Path(__file__).parent / "fixtures" / "replies.jsonl"
ROWS = [json.loads(line) for line in FILE.read_text(encoding="utf-8").splitlines()]


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
