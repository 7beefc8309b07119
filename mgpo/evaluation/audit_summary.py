"""What an audit comes to: drops by kind, evidence margins, and how often answers were right for the wrong reason."""

from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from statistics import fmean
from typing import Any, NamedTuple

from mgpo.answers import vote_of
from mgpo.evaluation.audit import ALONE, DISTRACTOR, KINDS, Audited
from mgpo.evaluation.counterfactuals import compare
from mgpo.metrics import CROP, NO_TOOLS
from mgpo.metrics.intervals import paired_bootstrap, wilson

Row = dict[str, Any]
Summary = dict[str, Any]
COVERED = 0.3  # share of a mark from which on a crop holds it: HART's rule (arXiv 2602.23615, section 4.1)
RESAMPLES = 2000  # of the intervals
LARGE = ", large"  # ends the category of scenes that can be read without a crop
READABLE, UNREADABLE = "readable without a crop", "not readable without"

Tells = Callable[[Row], bool | None]


class Rate(NamedTuple):
    """A share of questions, in words: whom it is of, and who counts. What either says None of is left out."""

    words: str
    of: Tells
    counts: Tells


RATES = {
    "wrong_reason": Rate(
        "right, but the crop alone is not",
        lambda row: _looked(row) and row[CROP], lambda row: _not(_right_in(row, ALONE)),
    ),
    "wrong_anyway": Rate(
        "wrong, but the crop alone is right",
        lambda row: _looked(row) and not row[CROP], lambda row: _right_in(row, ALONE),
    ),
    "without_tools": Rate(
        "right, and without a crop too",
        lambda row: _looked(row) and row[CROP], lambda row: _right_in(row, NO_TOOLS),
    ),
    "distractor_taken": Rate(
        "a distractor's answer was taken",
        lambda row: DISTRACTOR in row["kinds"], lambda row: row["distractor_taken"],
    ),
    "mark_outside": Rate(
        "right, but the mark is outside",
        lambda row: _looked(row) and row[CROP], lambda row: _not(_holds(row)),
    ),
    "grounded": Rate("the mark is in a crop", lambda row: True, lambda row: _holds(row)),
    "right_ungrounded": Rate(
        "right, but the mark is in no crop", lambda row: row[CROP], lambda row: _not(_holds(row))
    ),
}  # fmt: skip


def row_of(one: Audited) -> Row:
    """All that is kept of a question, for JSON."""
    trajectory, question = one.trajectory, one.trajectory.question
    answers = {kind: {"answer": t.answer, "right": t.right} for kind, t in one.again.items()}
    distractor = vote_of(one.distractor, question.choices)  # None where it picks none of the options
    vote = vote_of(answers.get(DISTRACTOR, {}).get("answer"), question.choices)
    return {
        "id": question.id, "split": question.split, "category": question.category, "source": question.source,
        "question": question.text, "choices": question.choices, "truth": question.answer,
        "answer": trajectory.answer, CROP: trajectory.right,
        "replies": [turn.text for turn in trajectory.turns],
        "regions": [view.region for view in trajectory.crops], "size": trajectory.image.size,
        "pictures": [view.picture for view in trajectory.crops],
        "kinds": answers, "left_out": one.left_out,
        "same": {kind: vote_of(t.answer, question.choices) == vote_of(trajectory.answer, question.choices)
                 for kind, t in one.again.items()},
        "distractor": one.distractor,
        "distractor_taken": None if distractor is None or DISTRACTOR not in answers else vote == distractor,
        "margin": one.margin, "margins": one.margins,
        "covered": None,
    }  # fmt: skip


def summarise(rows: Sequence[Row]) -> Summary:
    """The numbers of all rows, then by split, and there of scenes that can be read without a crop and of the others."""
    by_split = defaultdict(list)
    for row in rows:
        by_split[row["split"]].append(row)
    return {
        **numbers(rows),
        "by_split": {split: _with_groups(part) for split, part in sorted(by_split.items(), key=_val_first)},
    }


def _val_first(named: tuple[str, list[Row]]) -> tuple[bool, str]:
    return named[0] != "val", named[0]


def _with_groups(rows: Sequence[Row]) -> Summary:
    groups = {READABLE: [r for r in rows if r["category"].endswith(LARGE)]}
    groups[UNREADABLE] = [row for row in rows if not row["category"].endswith(LARGE)]
    told = {name: numbers(part) for name, part in groups.items()} if all(groups.values()) else {}
    return {**numbers(rows), "by_group": told}


def numbers(rows: Sequence[Row]) -> Summary:
    """`n`, `accuracy`, `with_crop`; by kind what `compare` tells of those with a crop, and `same`, the share of answers
    that stay; why questions were left out of a kind; margins in nats; and the `RATES`."""
    looked = [row for row in rows if _looked(row)]
    flat = [{CROP: row[CROP], **{kind: said["right"] for kind, said in row["kinds"].items()}} for row in looked]
    kinds = [kind for kind in KINDS if any(kind in row["kinds"] or kind in row["left_out"] for row in looked)]
    compared = compare(flat, [CROP, *kinds], RESAMPLES)
    for kind in kinds:
        same = [row["same"][kind] for row in looked if kind in row["same"]]
        compared[kind]["same"] = fmean(same) if same else None
        compared[kind]["left_out"] = dict(Counter(r["left_out"][kind] for r in looked if kind in r["left_out"]))
    right = sum(row[CROP] for row in rows)
    return {
        "n": len(rows),
        "accuracy": right / len(rows) if rows else None,
        "accuracy_interval": wilson(right, len(rows)),
        "with_crop": len(looked),
        "kinds": compared,
        "margin": _mean([row["margin"] for row in looked if row["margin"] is not None]),
        "margin_by_look": [_mean(values) for values in _by_look(looked)],
        "rates": {name: _share(rows, of, counts) for name, (_, of, counts) in RATES.items()},
    }


def _mean(values: Sequence[float]) -> Summary:
    interval = paired_bootstrap(values, RESAMPLES) if values else None
    return {"n": len(values), "mean": fmean(values) if values else None, "interval": interval}


def _by_look(rows: Sequence[Row]) -> list[list[float]]:
    """The margins of all first looks, of all second ones, …, where there were several."""
    several = [row["margins"] for row in rows if row["margins"]]
    return [[m[look] for m in several if look < len(m)] for look in range(max(map(len, several), default=0))]


def _share(rows: Sequence[Row], of: Tells, counts: Tells) -> Summary:
    told = [said for row in rows if of(row) and (said := counts(row)) is not None]
    count, n = sum(told), len(told)
    return {"n": n, "count": count, "share": count / n if n else None, "interval": wilson(count, n) if n else None}


def _looked(row: Row) -> bool:
    return bool(row["regions"])


def _right_in(row: Row, kind: str) -> bool | None:
    return row["kinds"].get(kind, {}).get("right")


def _holds(row: Row) -> bool | None:
    return None if row["covered"] is None else row["covered"] > COVERED


def _not(said: bool | None) -> bool | None:
    return None if said is None else not said
