"""Hostile replies: what once failed, and some hundred strings more; `tests.reliability.fuzz` has millions."""

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mgpo.answers import extract
from tests.reliability.fuzz import LONGEST, cases, hostile

ONCE_SLOW = ["so B. ", "A is correct ", "<answer>", "the answer is B. ", "\ufdfa", "[1, 2, 3, 4],", "=> B ",
             "(((\ufdfaA, B or C not \\boxed{)))"]  # fmt: skip
ONCE_WRONG = ["9" * 5000, "[" * LONGEST, "{" * LONGEST, "\ud800" * 99, "[NaN, Infinity, 1e999, 0]", "[\u0661, 2, 3, 4]",
              "[10, 20, 110,\x1d102]"]  # fmt: skip


def read(text, seed=0):
    for _, call in cases(text, random.Random(seed)):
        call()


@pytest.mark.parametrize("text", [*((part * LONGEST)[:LONGEST] for part in ONCE_SLOW), *ONCE_WRONG], ids=range(15))
def test_what_was_found(text):
    for seed in range(12):
        read(text, seed)


@settings(max_examples=300, deadline=None)
@given(st.integers(0, 2**32))
def test_nothing_raises(seed):
    rng = random.Random(seed)
    read(hostile(rng), seed)


def test_the_end_of_a_long_reply_counts():
    assert extract("I see. " * 20_000 + "The answer is (B).", ("red", "blue")) == "(B)."
    assert extract("<answer>A<answer>B</answer>") == "B"
