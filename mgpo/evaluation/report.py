"""The report: shares with 95 % intervals by split, category and source, as a dictionary or a table, and what failed."""

from collections import defaultdict
from collections.abc import Sequence
from statistics import fmean, geometric_mean
from typing import Any, Literal

from rich.box import SIMPLE_HEAD
from rich.markup import escape
from rich.table import Table

from mgpo.metrics.intervals import paired_bootstrap, wilson
from mgpo.metrics.record import Record
from mgpo.metrics.values import FIELDS, GEOMETRIC, known, subimage_shares
from mgpo.utils.terminal_tables import first_that_fits

Summary = dict[str, Any]
Differences = dict[tuple[str, str | None, str], tuple[float, float]]  # by split, category and share
ALL = None  # every category of a split, and questions of none
RESAMPLES = 1000  # of the table's intervals, which show whole percentage points
SHARES = ("accuracy", "valid_box_ratio", "crop_rate", "subimage_accuracy")
MEANS = ("zoom_factor", "crop_area_share", "turns", "fallback_rate")
# Why answers were wrong, as far as can be told without knowing the right place.
NO_BOX = "no usable box"
ELSEWHERE = "the part alone does not answer the question"
MISREAD = "the part alone answers it, the dialogue did not"
NO_LOOK = "answered without a look"
COLUMNS = {  # of the table
    "accuracy": "accuracy",
    "valid boxes": "valid_box_ratio",
    "crops": "crop_rate",
    "sub-image alone": "subimage_accuracy",
}


def summarise(records: Sequence[Record]) -> Summary:
    """`n`, the shares with their intervals, why boxes were invalid, and the same by split, category and source.

    `accuracy` and `crop_rate` (a part was cut out and shown) are over all questions, `valid_box_ratio` over
    those where a box was looked for. Of the sub-images that answer the question alone, `subimage_accuracy`
    is the share among the usable boxes, `subimage_share` that among all questions (of a dialogue with boxes).
    The means have no intervals: `zoom_factor` (geometric) and `crop_area_share` are over the questions with a
    crop, `turns` and `fallback_rate` over all.
    """
    by_split = defaultdict(list)
    for record in records:
        by_split[record.split].append(record)
    return {
        **_numbers(records),
        "by_category": _by("category", records),
        "by_split": {
            name: {**_numbers(part), "by_category": _by("category", part), "by_source": _by("source", part)}
            for name, part in sorted(by_split.items())
        },
    }


def _by(field: Literal["category", "source"], records: Sequence[Record]) -> dict[str, Summary]:
    """The numbers of each category, or of each source of a mixture."""
    parts = defaultdict(list)
    for record in records:
        parts[getattr(record, field)].append(record)
    if field == "source":
        parts.pop("", None)
    return {name: _numbers(part) for name, part in sorted(parts.items())}


def shares(records: Sequence[Record]) -> dict[str, list[float]]:
    """For each share, 1 or 0 for each of the records that it is over."""
    found = {name: known(FIELDS[name], records) for name in SHARES}
    return {**found, "subimage_share": subimage_shares(records)}


def _numbers(records: Sequence[Record]) -> Summary:
    numbers: Summary = {"n": len(records)}
    for name, found in shares(records).items():
        numbers[name] = sum(found) / len(found) if found else None
        numbers[f"{name}_interval"] = wilson(int(sum(found)), len(found)) if found else None
    for name in MEANS:
        found, mean = known(FIELDS[name], records), geometric_mean if name in GEOMETRIC else fmean
        numbers[name] = mean(found) if found else None
    reasons = [r.reason for r in records if r.reason is not None]
    numbers["invalid_reasons"] = {reason: reasons.count(reason) for reason in sorted(set(reasons))}
    return numbers


def differences(after: Sequence[Record], before: Sequence[Record]) -> Differences:
    """By split, category and share: the 95 % interval of what was gained, over questions that were asked both times.

    A share has none where it is over other questions than before, as that of the sub-images is.
    """
    old = {(record.split, record.id): record for record in before}
    parts = defaultdict(list)
    for record in after:
        if (earlier := old.get((record.split, record.id))) is not None:
            for category in (ALL, record.category):
                parts[record.split, category].append((record, earlier))
    found: Differences = {}
    for part, pairs in parts.items():
        for name in SHARES:
            judged = [(getattr(record, FIELDS[name]), getattr(earlier, FIELDS[name])) for record, earlier in pairs]
            both = [float(new) - float(then) for new, then in judged if new is not None and then is not None]
            if both and len(both) == sum(new is not None or then is not None for new, then in judged):
                found[*part, name] = paired_bootstrap(both, RESAMPLES)
    return found


def failures(records: Sequence[Record]) -> dict[str, list[Record]]:
    """The wrong answers by kind, in the order in which an episode can go wrong."""
    kinds: dict[str, list[Record]] = {NO_BOX: [], ELSEWHERE: [], MISREAD: [], NO_LOOK: []}
    for record in records:
        if not record.right:
            kinds[_kind(record)].append(record)
    return kinds


def _kind(record: Record) -> str:
    if record.valid_box is None:
        return NO_LOOK
    if not record.valid_box:
        return NO_BOX
    return MISREAD if record.subimage_right else ELSEWHERE


def format_report(
    after: Summary, before: Summary | None = None, gained: Differences | None = None, width: int | None = None
) -> str:
    """A table by split, category and source, all first; with `before`, both side by side.

    Intervals are those of the shares, or of what was `gained` where that is given. In a narrow terminal they stand
    below their shares, then they and some shares are left out; `width` is the terminal's unless given.
    """
    few = {name: COLUMNS[name] for name in ("accuracy", "valid boxes", "sub-image alone")}
    plain = {name: COLUMNS[name] for name in ("accuracy", "valid boxes")}
    layouts = [
        (COLUMNS, " "),
        (COLUMNS, "\n"),
        (few, "\n"),
        (few, None),
        (plain, None),
        ({"accuracy": "accuracy"}, None),
    ]
    tables = (_table(after, before, gained or {}, columns, between) for columns, between in layouts)
    return first_that_fits(tables, width)


def _table(
    after: Summary, before: Summary | None, gained: Differences, columns: dict[str, str], between: str | None
) -> Table:
    """The shares `columns`, each with its interval behind `between`, or without where that is None."""
    caption = "intervals: 95 %, of the change in percentage points" if gained and between else None
    title = "before → after" if before else None
    table = Table(title=title, caption=caption, box=SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    table.add_column("")
    for name in ("n", *columns):
        table.add_column(name, justify="right")
    for split in sorted(after["by_split"], key=lambda name: (name != "val", name)):
        numbers, old = after["by_split"][split], before["by_split"].get(split) if before else None
        rows = [(f"{split}: all", ALL, numbers, old)]
        if len(numbers["by_category"]) > 1:
            names = sorted(numbers["by_category"], key=lambda name: (name.count(","), name))
            parts = old["by_category"] if old else {}
            rows += [(name or "no category", name, numbers["by_category"][name], parts.get(name)) for name in names]
        sources = old["by_source"] if old else {}
        named = [(f"from {name}", part, sources.get(name)) for name, part in numbers["by_source"].items()]
        rows += [(title, title, part, old_part) for title, part, old_part in named]
        for title, category, part, old_part in rows:
            cells = [
                _cell(part, old_part, name, gained.get((split, category, name)), between) for name in columns.values()
            ]
            last = title == rows[-1][0]
            table.add_row(escape(title), str(part["n"]), *cells, end_section=last)
    return table


def format_lines(summary: Summary, step: int) -> str:
    """A line for each split: what a validation in the middle of training says of itself."""
    lines = []
    for split, numbers in summary["by_split"].items():
        boxes = numbers["valid_box_ratio"]
        more = "" if boxes is None else f", valid boxes {boxes:.2f}"
        lines.append(f"step {step}: {split} accuracy {numbers['accuracy']:.2f}{more}")
    return "\n".join(lines)


def _cell(
    numbers: Summary, before: Summary | None, name: str, gained: tuple[float, float] | None, between: str | None
) -> str:
    if numbers[name] is None:
        return "-"
    if before and before[name] is not None:
        shown = f"{before[name]:.3f} → {numbers[name]:.3f}"
        interval = f"{100 * gained[0]:+.0f} to {100 * gained[1]:+.0f}" if gained else ""
    else:
        shown = f"{numbers[name]:.3f}"
        interval = "{:.2f}–{:.2f}".format(*numbers[f"{name}_interval"])
    return f"{shown}{between}{interval and f'({interval})'}" if between else shown
