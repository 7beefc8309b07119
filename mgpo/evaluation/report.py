"""The report: shares with 95 % intervals, by split and category, as a dictionary and as a table."""

from collections import defaultdict
from collections.abc import Sequence
from statistics import fmean, geometric_mean
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from mgpo.metrics import values
from mgpo.metrics.intervals import wilson
from mgpo.metrics.record import Record

Summary = dict[str, Any]
SHARES = {
    "accuracy": values.right,
    "valid_box_ratio": values.valid_box,
    "crop_rate": values.crop,
    "subimage_accuracy": values.subimage,
}
MEANS = {
    "zoom_factor": (values.zoom, geometric_mean),
    "crop_area_share": (values.area, fmean),
    "turns": (values.turns, fmean),
    "fallback_rate": (values.fallback, fmean),
}
COLUMNS = {  # of the table
    "accuracy": "accuracy",
    "valid boxes": "valid_box_ratio",
    "crops": "crop_rate",
    "sub-image alone": "subimage_accuracy",
}


def summarise(records: Sequence[Record]) -> Summary:
    """`n`, the shares with their intervals, why boxes were invalid, and the same by split and category.

    `accuracy` and `crop_rate` (a part was cut out and shown) are over all questions, `valid_box_ratio` over
    those where a box was looked for. Of the sub-images that answer the question alone, `subimage_accuracy`
    is the share among the usable boxes, `subimage_share` that among all questions (of a dialogue with boxes).
    The means have no intervals: `zoom_factor` (geometric) and `crop_area_share` are over the questions with a
    crop, `turns` and `fallback_rate` over all.
    """
    by_split, by_category = defaultdict(list), defaultdict(list)
    for record in records:
        by_split[record.split].append(record)
        by_category[record.category].append(record)
    return {
        **_numbers(records),
        "by_category": {name: _numbers(part) for name, part in sorted(by_category.items())},
        "by_split": {
            name: {**_numbers(part), "by_category": {c: _numbers(p) for c, p in _by_category(part).items()}}
            for name, part in sorted(by_split.items())
        },
    }


def _by_category(records: Sequence[Record]) -> dict[str, list[Record]]:
    parts = defaultdict(list)
    for record in records:
        parts[record.category].append(record)
    return dict(sorted(parts.items()))


def shares(records: Sequence[Record]) -> dict[str, list[float]]:
    """For each share, 1 or 0 for each of the records that it is over."""
    found = {name: values.applicable(of, records) for name, of in SHARES.items()}
    return {**found, "subimage_share": values.subimage_shares(records)}


def _numbers(records: Sequence[Record]) -> Summary:
    numbers: Summary = {"n": len(records)}
    for name, found in shares(records).items():
        numbers[name] = sum(found) / len(found) if found else None
        numbers[f"{name}_interval"] = wilson(int(sum(found)), len(found)) if found else None
    for name, (of, mean) in MEANS.items():
        found = values.applicable(of, records)
        numbers[name] = mean(found) if found else None
    reasons = [r.reason for r in records if r.reason is not None]
    numbers["invalid_reasons"] = {reason: reasons.count(reason) for reason in sorted(set(reasons))}
    return numbers


def format_report(after: Summary, before: Summary | None = None) -> str:
    """A table by split and category; with `before`, both side by side."""
    table = Table(title="before -> after" if before else None)
    for name in ("split", "category", "n", *COLUMNS):
        table.add_column(name, justify="left" if name in ("split", "category") else "right")
    for split, numbers in after["by_split"].items():
        old = before["by_split"].get(split) if before else None
        parts = [("all", numbers, old)]
        if len(numbers["by_category"]) > 1:
            parts += [
                (name, part, old and old["by_category"].get(name)) for name, part in numbers["by_category"].items()
            ]
        for category, part, old_part in parts:
            cells = [_cell(part, old_part, name) for name in COLUMNS.values()]
            table.add_row(escape(split), escape(category), str(part["n"]), *cells, end_section=category == parts[-1][0])
    console = Console(width=130, color_system=None)
    with console.capture() as capture:
        console.print(table)
    return capture.get()


def format_lines(summary: Summary, step: int) -> str:
    """A line for each split: what a validation in the middle of training says of itself."""
    lines = []
    for split, numbers in summary["by_split"].items():
        boxes = numbers["valid_box_ratio"]
        more = "" if boxes is None else f", valid boxes {boxes:.2f}"
        lines.append(f"step {step}: {split} accuracy {numbers['accuracy']:.2f}{more}")
    return "\n".join(lines)


def _cell(numbers: Summary, before: Summary | None, name: str) -> str:
    if numbers[name] is None:
        return "-"
    if before and before[name] is not None:
        return f"{before[name]:.3f} -> {numbers[name]:.3f}"
    low, high = numbers[f"{name}_interval"]
    return f"{numbers[name]:.3f} ({low:.2f}-{high:.2f})"
