"""A benchmark's score as the class of its source has it, that under a harness's rule, and where the two differ."""

from collections.abc import Sequence
from dataclasses import asdict, replace
from typing import Any

from mgpo.answers import LETTERS, choice_letter
from mgpo.data.benchmarks.harness import Rule
from mgpo.errors import UserError
from mgpo.metrics.record import Record
from mgpo.metrics.score import Score, accuracy

SHOWN = 5  # questions
TAIL = 160  # characters of a reply
SCORED = {*LETTERS, "yes", "no"}  # what a rule's outcome has to be, exactly


def score(source: Any, records: Sequence[Record]) -> Score:
    """A source's records by its own `score`, or their accuracy where it has none. Raises UserError for no `Score`."""
    judge = getattr(source, "score", accuracy)
    made = judge(records) if callable(judge) else judge
    if not isinstance(made, Score):
        raise UserError(
            f"{_class_of(source)}.score gives {repr(made)[:80]}; it should be a static method from records to a "
            "mgpo.metrics.Score"
        )
    return made


def score_name(source: Any) -> str:
    """What a source's score is called."""
    if getattr(source, "score", accuracy) is accuracy:
        return getattr(source, "scored_as", "") or "accuracy"
    return getattr(source, "scored_as", "") or _class_of(source)


def _class_of(source: Any) -> str:
    return source.__name__ if isinstance(source, type) else type(source).__name__


def summary(source: Any, records: Sequence[Record]) -> dict[str, Any]:
    """One benchmark for benchmarks.json: its score, and under `harness` the same by each harness's rule.

    `flips` counts the questions that are right by one of the two and wrong by the other; right here is what the
    benchmark's score takes for right.

    Args:
        source: Of the records, or its class: its `score`, `harnesses` and `right` are asked, where it has them.
    """
    if (judge := getattr(source, "right", None)) is not None:
        records = [replace(record, right=judge(record)) for record in records]
    harnesses = {}
    for harness, rule in getattr(source, "harnesses", {}).items():
        theirs = [reread(record, rule) for record in records]
        flipped = [(ours, other) for ours, other in zip(records, theirs) if ours.right != other.right]
        harnesses[harness] = {
            **asdict(score(source, theirs)),
            "flips": len(flipped),
            "right_by_ours_only": sum(ours.right for ours, _ in flipped),
            "first": [_shown(ours, other) for ours, other in flipped[:SHOWN]],
        }
    return {"score": score_name(source), **asdict(score(source, records)), "harness": harnesses}


def reread(record: Record, rule: Rule) -> Record:
    """The record as a harness would have it: its last reply read by the rule, with no answer where that is not scored.

    "yes, there is a dog" is no answer to a harness that compares the whole reply with "yes".
    """
    read = rule(record.replies[-1] if record.replies else "", record.choices)
    return replace(record, answer=read if read in SCORED else None, right=read == record.truth)


def _shown(ours: Record, theirs: Record) -> dict[str, Any]:
    reply = ours.replies[-1] if ours.replies else ""
    answer = choice_letter(ours.answer, ours.choices) if ours.choices and ours.answer is not None else ours.answer
    if answer is None:
        why = "the reply commits to none of the answers; the rule reads one"
    elif theirs.answer is None:
        why = "the rule finds nothing"
    else:
        why = "the rule reads another place of the reply"
    return {
        "id": ours.id, "reply": reply[-TAIL:], "ours": answer, "theirs": theirs.answer, "truth": ours.truth, "why": why,
    }  # fmt: skip
