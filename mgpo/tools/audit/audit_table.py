"""What an audit found, as tables that fit the terminal."""

import textwrap
from collections.abc import Iterable, Sequence

from rich.box import SIMPLE_HEAD
from rich.markup import escape
from rich.table import Table

from mgpo.evaluation.audit import KINDS
from mgpo.evaluation.audit_summary import RATES, READABLE, UNREADABLE, Summary
from mgpo.metrics import CROP
from mgpo.tools.audit.published_audits import PUBLISHED
from mgpo.utils.terminal_tables import columns_here, first_that_fits


def format_audit(summary: Summary, width: int | None = None) -> str:
    """Tables and lines on every split, then those of published figures beside the first split's."""
    parts = [part for split, found in summary["by_split"].items() for part in _split(split, found, width)]
    first = next(iter(summary["by_split"].values()))
    return "\n".join([*parts, _fitted([_published(first)], width), *notes(width)])


def notes(width: int | None = None) -> list[str]:
    """What of the published figures compares, a numbered line each, as wide as the terminal."""
    lines = [f"({number}) {entry.compares}" for number, entry in enumerate(PUBLISHED, start=1)]
    return [textwrap.fill(line, width or columns_here(), subsequent_indent="    ") for line in lines]


def _split(split: str, summary: Summary, width: int | None) -> list[str]:
    head = f"{split or 'all'}: {summary['n']} questions, accuracy {share(summary['accuracy'])}"
    if not summary["with_crop"]:
        return [f"{head}; no crop was shown in any, so that none can be changed", ""]
    parts = [f"{head}; {summary['with_crop']} with a crop, which are those below", ""]
    layouts = ((between, same) for between, same in ((" ", True), ("\n", True), (None, True), (None, False)))
    parts += [_fitted((_kinds(summary, *layout) for layout in layouts), width), "", *left_out(summary)]
    parts += [*margins(summary), ""]
    parts += [_fitted((_rates(summary, groups) for groups in (True, False)), width), ""]
    return parts


def _fitted(tables: Iterable[Table], width: int | None) -> str:
    """The first table that fits, without the empty lines around it."""
    return "\n".join(map(str.rstrip, first_that_fits(tables, width).splitlines())).strip("\n")


def share(value: float | None) -> str:
    """A share with three digits, or a dash."""
    return "-" if value is None else f"{value:.3f}"


def interval(bounds: Sequence[float] | None) -> str:
    """Both ends in brackets; empty without any."""
    if bounds is None:
        return ""
    low, high = (round(bound, 2) + 0.0 for bound in bounds)  # no -0.00
    return f"({low:.2f} to {high:.2f})"


def left_out(summary: Summary) -> list[str]:
    """How many questions could not be played in a kind, and why, a line each."""
    return [
        f"left out of {kind}: {count}, because {why}"
        for kind, numbers in summary["kinds"].items()
        for why, count in numbers.get("left_out", {}).items()
    ]


def margins(summary: Summary) -> list[str]:
    """The evidence margin in words, and that of each look where there are several."""
    found = [("evidence margin", summary["margin"])]
    found += [(f"of look {look} of several", each) for look, each in enumerate(summary["margin_by_look"], start=1)]
    return [
        f"{name}: {each['mean']:.2f} nats {interval(each['interval'])}, n = {each['n']}"
        for name, each in found
        if each["mean"] is not None
    ]


def _kinds(summary: Summary, between: str | None, same: bool) -> Table:
    """The drop's interval stands behind it, or below it."""
    table = _table("what is shown")
    for name in ("n", "right", "drop", *(["same\nanswer"] if same else [])):
        table.add_column(name, justify="right")
    for kind, numbers in summary["kinds"].items():
        drop = "" if kind == CROP else share(numbers["drop"])
        if drop and between and numbers["drop_interval"] is not None:
            drop += between + interval(numbers["drop_interval"])
        more = [] if not same else ["" if kind == CROP else share(numbers["same"])]
        table.add_row(escape(words_for(kind)), str(numbers["n"]), share(numbers["accuracy"]), drop, *more)
    return table


def words_for(kind: str) -> str:
    """What is shown in a kind."""
    return "the crop, as it is" if kind == CROP else KINDS[kind]


def _rates(summary: Summary, groups: bool) -> Table:
    """Of all questions, then of the two groups of scenes where there are any."""
    found = {"share": summary, **(summary.get("by_group", {}) if groups else {})}
    titles = {"share": "share", READABLE: "readable\nwithout", UNREADABLE: "not\nreadable"}
    table = _table("of those that are …")
    for name in found:
        table.add_column(titles[name], justify="right")
    for name, rate in RATES.items():
        if summary["rates"][name]["n"]:
            told = [part["rates"][name] for part in found.values()]
            table.add_row(rate.words, *(f"{share(each['share'])} of {each['n']}" for each in told))
    return table


def _published(summary: Summary) -> Table:
    table = _table("in per cent, published")
    for name in ("", "here"):
        table.add_column(name, justify="right")
    for number, entry in enumerate(PUBLISHED, start=1):
        here = entry.here(summary)
        figures = "\n".join(f"{model} {figure:.1f}" for model, figure in entry.figures.items())
        table.add_row(f"{entry.measure} ({number})", figures, "-" if here is None else f"{100 * here:.1f}")
    return table


def _table(first: str) -> Table:
    table = Table(box=SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    table.add_column(first)
    return table
