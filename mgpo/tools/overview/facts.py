"""What there is to know of questions before a weight is read: sizes, lengths, kinds of answers, what is left out."""

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from random import Random
from statistics import median
from typing import Any

from PIL import Image

from mgpo.answers.numbers import value
from mgpo.data.base import Source, question_of
from mgpo.data.remote_images import WebPicture
from mgpo.dialogues import Dialogue
from mgpo.gallery.html_page import shorten
from mgpo.images.decoding import BadImage, size_of
from mgpo.images.lazy import LazyImage
from mgpo.images.views import Size
from mgpo.policy.base import Policy
from mgpo.rollout.fitting import opening, too_long
from mgpo.types import Question, Trajectory

EXAMPLES = 3  # of rows that are left out for one reason
SHOWN = 300  # characters of a reason
ABOVE, BEYOND = "a prompt above policy.max_prompt_tokens", "a prompt beyond the model's positions"
Summary = dict[str, Any]


@dataclass(frozen=True)
class Fact:
    """One question as training will see it."""

    question: Question
    size: Size | None = None  # of the picture
    seen: Size | None = None  # of the first view
    tokens: int | None = None  # before the first reply
    why: str | None = None  # it will be left out
    others: tuple[tuple[Size, Size], ...] = ()  # of its further pictures, size and size of the first view

    @property
    def sizes(self) -> tuple[tuple[Size, Size], ...]:
        """Of all pictures, size and size of the first view; none where they are not known."""
        return () if self.size is None or self.seen is None else ((self.size, self.seen), *self.others)


def look(policy: Policy, dialogue: Dialogue, source: Source, limit: int, reply: int) -> list[Fact]:
    """The facts on at most `limit` questions, in order: all, or a random choice that is always the same.

    Args:
        policy: Of which only the tokenizer and the image processor are asked.
        dialogue: What is said in each turn.
        source: The questions.
        limit: How many of them.
        reply: Tokens for which a prompt has to leave room.
    """
    chosen = sorted(Random(0).sample(range(len(source)), min(len(source), limit)))
    return [_fact(policy, dialogue, question_of(source, i), reply) for i in chosen]


def _fact(policy: Policy, dialogue: Dialogue, question: Question, reply: int) -> Fact:
    if any(isinstance(picture, WebPicture) for picture in question.pictures):
        return Fact(question)  # nothing is fetched here
    try:
        sizes = [size_of(picture) for picture in question.pictures]
    except BadImage as error:
        return Fact(question, why=str(error))
    trajectory = unopened(question, sizes)
    prompt = opening(policy, dialogue, trajectory)
    why = too_long(policy, (), prompt, reply)
    first, *others = zip(sizes, [policy.resolution.full(size) for size in sizes])
    return Fact(question, *first, len(prompt.ids), why, tuple(others))


def unopened(question: Question, sizes: Sequence[Size]) -> Trajectory:
    """A rollout of a question whose pictures' sizes are known, and of which no pixel has been decoded."""
    blank = Image.new("1", (1, 1))
    image, *others = [LazyImage(picture, size, blank) for picture, size in zip(question.pictures, sizes)]
    return Trajectory.begin(question, image, *others)


def summarise(policy: Policy, source: Source, facts: Sequence[Fact]) -> Summary:
    """What there is to say about a source, by the facts on its questions, as a JSON-able dictionary."""
    tokens = [fact.tokens for fact in facts if fact.tokens is not None]
    pairs = [pair for fact in facts for pair in fact.sizes]
    sizes = [size for size, _ in pairs]
    kinds = [(fact, kind_of_fact(policy, fact)) for fact in facts]
    counts = Counter(kind for _, kind in kinds)
    left_out = [(reason, kind_of(reason)) for reason in getattr(source, "bad", ())]
    left_out += [(f"{fact.question.id}: {fact.why}", kind) for fact, kind in kinds if kind is not None]
    return {
        "questions": len(source),
        "looked_at": len(facts),
        **{
            f"by_{field}": dict(Counter(getattr(fact.question, field) for fact in facts).most_common())
            for field in ("split", "source", "category")
        },
        "answers": dict(Counter(answer_kind(fact.question) for fact in facts).most_common()),
        "choices": spread(len(fact.question.choices) for fact in facts if fact.question.choices),
        "pictures": {
            "unopened": sum(fact.size is None and fact.why is None for fact in facts),  # behind an address
            "width": spread(width for width, _ in sizes),
            "height": spread(height for _, height in sizes),
            "megapixels": spread(round(width * height / 1e6, 3) for width, height in sizes),
            "shrunk": spread(round((size[0] * size[1] / (seen[0] * seen[1])) ** 0.5, 2) for size, seen in pairs),
            "a_question": spread(len(fact.question.pictures) for fact in facts),
        },
        "prompt_tokens": {
            **(spread(tokens) or {}),
            "max_prompt_tokens": policy.max_prompt_tokens,
            "positions": policy.max_positions,
            "above_max_prompt_tokens": counts[ABOVE],
            "beyond_positions": counts[BEYOND],
        },
        "left_out": _by_kind(left_out),
        "notes": list(getattr(source, "notes", ())),
    }


def spread(numbers: Iterable[float]) -> dict[str, float] | None:
    """The least, the median and the largest of some numbers; None where there are none."""
    found = sorted(numbers)
    return {"min": found[0], "median": median(found), "max": found[-1]} if found else None


def answer_kind(question: Question) -> str:
    """Whether the right answer is one of several options, a number or words."""
    if question.choices:
        return "option"
    return "words" if value(question.answer.strip().lower()) is None else "number"


def kind_of_fact(policy: Policy, fact: Fact) -> str | None:
    """Why a question will be left out, as `kind_of`; None where it won't."""
    if fact.why is None or fact.tokens is None:
        return None if fact.why is None else kind_of(fact.why)
    limit = policy.max_prompt_tokens
    return ABOVE if limit is not None and fact.tokens > limit else BEYOND


def kind_of(reason: str) -> str:
    """A reason without what differs from row to row: names, quotations and numbers; the column stays."""
    plain = re.sub(r"'[^']{0,300}'|\"[^\"]{0,300}\"", "…", reason[:2000])
    plain = re.sub(r"^(?:[^:]{0,100}?, )?row \d{1,12}, ", "", plain)
    plain = re.sub(r"^(column [^:]{1,60}), picture \d{1,2}: ", r"\1: ", plain)
    column = re.match(r"column [^:]{1,60}: ", plain)
    last = plain[column.end() if column else 0 :].split("; ")[0].split(": ")[-1].partition(" (")[0]
    kind = re.sub(r"\d[\d,.]*", "N", last)
    return shorten((column[0] if column else "") + kind, SHOWN)


def _by_kind(left_out: Sequence[tuple[str, str]]) -> dict[str, Summary]:
    """By kind how many there are, the commonest first, and a few as they are."""
    kinds: dict[str, list[str]] = defaultdict(list)
    for reason, kind in left_out:
        kinds[kind].append(reason)
    ordered = sorted(kinds.items(), key=lambda item: -len(item[1]))
    return {
        kind: {"count": len(reasons), "examples": [shorten(reason, SHOWN) for reason in reasons[:EXAMPLES]]}
        for kind, reasons in ordered
    }
