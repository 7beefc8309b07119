"""Several sources as one: all questions of each, or in proportions."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from math import ceil, isfinite
from pathlib import PurePath

import numpy as np

from mgpo.data.base import DataError, Source, question_of
from mgpo.types import Question
from mgpo.utils.interface import implementing

MARKS = "/#"  # what parts an id from its source's name
MOST = 50_000_000  # questions in an epoch


@dataclass(frozen=True)
class Part:
    """One source of a mixture.

    Args:
        source: Its questions.
        weight: Its share of the weighted parts' questions, in proportion to their weights; without one each of its
            questions is asked once an epoch, whatever the others have.
        name: Under which its results are reported and its reward is found; by default that of its file, or its class's.
    """

    source: Source
    weight: float | None = None
    name: str = ""


class Mixture:
    """Several sources, spread evenly over one epoch, each with a share of it.

    A part without a weight is asked in full, once an epoch. Parts with weights get shares of what they are together,
    each within one question of its weight's. An epoch is the shortest in which each of their questions is asked: the
    part that is largest for its weight once, the others again from their beginning until they have their share.

    Ids begin with the name of the source, and with how often it has begun again: `signs/7`, `signs#2/7`.

    Args:
        parts: The sources.

    Raises:
        DataError: For a part that is empty, has no possible weight, or has a name that is another's or can't be one.
    """

    def __init__(self, parts: Sequence[Part]) -> None:
        if not parts:
            raise DataError("data: a mixture of no parts has no questions; name at least one source")
        for part in parts:
            implementing(Source, part.source, "data: a part of the mixture")
        names = [part.name or _name_of(part.source) for part in parts]
        for name, part in zip(names, parts):
            _check(name, part)
            if names.count(name) > 1:
                raise DataError(f"data: two parts of the mixture are called {name!r}; give one another name")
        self.named = [(name, part.source) for name, part in zip(names, parts)]
        counts = _counts([len(part.source) for part in parts], [part.weight for part in parts])
        # Question j of n stands at (j + 1/2) / n of the epoch.
        places = np.concatenate([(np.arange(count) + 0.5) / count for count in counts])
        order = places.argsort(kind="stable")
        self.part_of = np.repeat(np.arange(len(counts)), counts)[order]
        self.number = np.concatenate([np.arange(count) for count in counts])[order]

    def __len__(self) -> int:
        return len(self.part_of)

    def __getitem__(self, index: int) -> Question:
        if not 0 <= index < len(self):
            raise IndexError(index)
        name, source = self.named[self.part_of[index]]
        again, place = divmod(int(self.number[index]), len(source))
        question = question_of(source, place)
        begun = f"{name}#{again + 1}" if again else name
        return replace(question, id=f"{begun}/{question.id}", source=name)

    @property
    def bad(self) -> list[str]:
        """What the sources have left out, and why."""
        return [f"{name}, {reason}" for name, source in self.named for reason in getattr(source, "bad", ())]

    @property
    def notes(self) -> list[str]:
        """What else the sources have to say of their rows."""
        return [f"{name}: {note}" for name, source in self.named for note in getattr(source, "notes", ())]

    def complaint(self) -> str | None:
        """What the sources complain of, a line each; None where none does."""
        said = [getattr(source, "complaint", lambda: None)() for _, source in self.named]
        return "\n".join(filter(None, said)) or None


def _counts(lengths: Sequence[int], weights: Sequence[float | None]) -> list[int]:
    """How often each part is asked in an epoch: all of it, or by largest remainders of the exact shares."""
    exact = {i: Fraction(repr(float(weight))) for i, weight in enumerate(weights) if weight is not None}
    if not exact:
        return list(lengths)
    whole = sum(exact.values())
    total = ceil(whole * max(lengths[i] / weight for i, weight in exact.items()))
    if total > MOST:
        raise DataError(
            f"data: an epoch of this mixture would have {total:,} questions, since each of every part is asked in it; "
            "take weights that are nearer to the parts' lengths"
        )
    shares = {i: total * weight / whole for i, weight in exact.items()}
    counts = [int(shares.get(i, length)) for i, length in enumerate(lengths)]
    missing = total - sum(counts[i] for i in shares)
    for i in sorted(shares, key=lambda i: counts[i] - shares[i])[:missing]:
        counts[i] += 1
    return counts


def _name_of(source: Source) -> str:
    path = getattr(source, "path", None)
    return PurePath(path).name.split(".")[0] if path else type(source).__name__.lower()


def _check(name: str, part: Part) -> None:
    if not name.strip() or not name.isprintable() or set(name) & set(MARKS) or len(name) > 60:
        raise DataError(
            f"data: {name[:60]!r} can't be the name of a mixture's part; give it a name of at most 60 characters "
            f"without {' and '.join(MARKS)}"
        )
    if not len(part.source):
        raise DataError(f"data: part {name!r} of the mixture is empty; take it out, or give it questions")
    if part.weight is not None and not (isfinite(part.weight) and part.weight > 0):
        raise DataError(
            f"data: part {name!r} of the mixture has weight {part.weight}; a weight is above 0, and without one all "
            "of its questions are asked"
        )
