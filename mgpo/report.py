"""The report: shares with 95 % intervals, by split and category, as a dictionary and as a table."""

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

from rich.console import Console
from rich.table import Table

from mgpo.records import Record
from mgpo.stats import wilson

Summary = dict[str, Any]
SHARES = ("accuracy", "valid_box_ratio", "crop_rate", "subimage_accuracy", "subimage_share")
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


def shares(records: Sequence[Record]) -> dict[str, list[bool]]:
    """For each share, the records that it is over, and whether each of them counts."""
    asked = any(r.valid_box is not None for r in records)
    return {
        "accuracy": [r.right for r in records],
        "valid_box_ratio": [r.valid_box for r in records if r.valid_box is not None],
        "crop_rate": [r.crops > 0 for r in records],
        "subimage_accuracy": [r.subimage_right for r in records if r.subimage_right is not None],
        "subimage_share": [r.subimage_right is True for r in records] if asked else [],
    }


def _numbers(records: Sequence[Record]) -> Summary:
    numbers: Summary = {"n": len(records)}
    for name, values in shares(records).items():
        numbers[name] = sum(values) / len(values) if values else None
        numbers[f"{name}_interval"] = wilson(sum(values), len(values)) if values else None
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
            table.add_row(split, category, str(part["n"]), *cells, end_section=category == parts[-1][0])
    console = Console(width=130, color_system=None)
    with console.capture() as capture:
        console.print(table)
    return capture.get()


def _cell(numbers: Summary, before: Summary | None, name: str) -> str:
    if numbers[name] is None:
        return "-"
    if before and before[name] is not None:
        return f"{before[name]:.3f} -> {numbers[name]:.3f}"
    low, high = numbers[f"{name}_interval"]
    return f"{numbers[name]:.3f} ({low:.2f}-{high:.2f})"
