"""What the page of a study may show."""

from collections.abc import Container, Sequence
from dataclasses import dataclass

from mgpo.errors import UserError
from mgpo.evaluation.audit_summary import RATES

HEADINGS = {
    "accuracy": "accuracy",
    "valid_box_ratio": "valid boxes",
    "crop_rate": "crop rate",
    "subimage_accuracy": "sub-image alone, of usable boxes",
    "subimage_share": "sub-image alone, of all questions",
}
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")  # told apart by the colour-blind


@dataclass(frozen=True)
class Table:
    """Shares of some rows, by split.

    Args:
        title: Heading.
        rows: Names of runs.
        shares: Columns: accuracy, valid_box_ratio, crop_rate, subimage_accuracy, subimage_share.
        categories: Only categories that contain a text, one line each; a leading "!" means not containing it.
        note: A sentence under the heading.
    """

    title: str
    rows: list[str]
    shares: list[str]
    categories: tuple[str, ...] = ("",)
    note: str = ""


@dataclass(frozen=True)
class Differences:
    """Accuracy of one run minus another's on the same questions.

    Args:
        title: Heading.
        pairs: Pairs of names of runs, [this, minus that].
        categories: As for tables.
        note: A sentence under the heading.
    """

    title: str
    pairs: list[tuple[str, str]]
    categories: tuple[str, ...] = ("",)
    note: str = ""


@dataclass(frozen=True)
class Curves:
    """A metric of training over its steps, one line a run, its range over seeds shaded.

    Args:
        title: Heading.
        metric: Column of metrics.csv.
        rows: Names of runs.
        window: Logged steps in the running mean.
        note: A sentence under the heading.
    """

    title: str
    metric: str
    rows: list[str]
    window: int = 4
    note: str = ""


@dataclass(frozen=True)
class Counterfactuals:
    """What a run's accuracy is with something else in place of the crop.

    Args:
        title: Heading.
        swapped: Names of runs that were evaluated with `counterfactuals.enabled`.
        note: A sentence under the heading.
    """

    title: str
    swapped: list[str]
    note: str = ""


@dataclass(frozen=True)
class Training:
    """How soon runs learn, by their own curves: steps to a level, groups without a signal, a step's cost.

    Args:
        title: Heading.
        rows: Names of runs.
        level: Of the running mean of the metric.
        metric: Column of metrics.csv, such as val/accuracy where a run validates in the middle of training.
        window: Logged steps in that mean.
        note: A sentence under the heading.
    """

    title: str
    rows: list[str]
    level: float
    metric: str = "train/accuracy"
    window: int = 4
    note: str = ""


@dataclass(frozen=True)
class Audits:
    """Whether answers rest on crops: accuracy, the evidence margin, and how often rows are right for a wrong reason.

    Args:
        title: Heading.
        audited: Names of runs that audit others.
        rates: Columns: some of the rates of `mgpo audit`, as audit.json calls them.
        note: A sentence under the heading.
    """

    title: str
    audited: list[str]
    rates: list[str]
    note: str = ""


Part = Table | Differences | Curves | Counterfactuals | Training | Audits


def check_parts(parts: Sequence[Part], runs: Container[str]) -> None:
    """Before days of runs. Raises UserError for a name that a part misspells, or more curves than colours."""
    for part in parts:
        for name in rows_of(part):
            if name not in runs:
                raise UserError(f"parts, {part.title!r}: there is no run {name!r}")
        for share in part.shares if isinstance(part, Table) else ():
            if share not in HEADINGS:
                raise UserError(
                    f"parts, {part.title!r}: there is no share {share!r}; take some of {', '.join(HEADINGS)}"
                )
        for rate in part.rates if isinstance(part, Audits) else ():
            if rate not in RATES:
                raise UserError(f"parts, {part.title!r}: there is no rate {rate!r}; take some of {', '.join(RATES)}")
        if isinstance(part, Curves) and len(part.rows) > len(COLOURS):
            raise UserError(f"parts, {part.title!r}: {len(part.rows)} curves; {len(COLOURS)} can be told apart")


def rows_of(part: Part) -> list[str]:
    """The names of all runs that a part shows."""
    if isinstance(part, Differences):
        return [name for pair in part.pairs for name in pair]
    if isinstance(part, Counterfactuals):
        return part.swapped
    return part.audited if isinstance(part, Audits) else part.rows


def check_subset(subset: Sequence[str], runs: Container[str]) -> None:
    """Raises UserError for a name in the subset that is no run."""
    for name in subset:
        if name not in runs:
            raise UserError(f"subset: there is no run {name!r}")
