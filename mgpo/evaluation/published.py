"""The figures that benchmarks' papers print, foremost this method's, and a run's own beside them."""

from collections.abc import Mapping, Sequence
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.table import Table

from mgpo.data.benchmarks import FSC147, POPE, HRBench4K, HRBench8K, MMERealWorldLite, PixmoCount, VStar
from mgpo.utils.terminal_tables import first_that_fits

SHOWN = (VStar, MMERealWorldLite, HRBench4K, HRBench8K, POPE)  # whatever a run was evaluated on
SHIPPED = (*SHOWN, FSC147, PixmoCount)
COLUMNS = tuple(benchmark.title for benchmark in SHOWN)
Sources = Sequence[Any]  # a run's own, whose classes may have published figures too
Figures = Mapping[str, float | None]  # per cent, by column
Counts = Mapping[str, Mapping[str, str]]  # "188 of 191" by run and column, where not all questions were scored
NONE: Counts = {}


def published(sources: Sources = ()) -> dict[str, dict[str, float]]:
    """Figures by row and column: those of the benchmarks here, then those of a run's sources."""
    found: dict[str, dict[str, float]] = {}
    for own in map(_titled, (*SHIPPED, *sources)):
        for name, figure in own.get("published", {}).items():
            found.setdefault(name, {})[own["title"]] = figure
    return found


def cited(sources: Sources = ()) -> str:
    """Where these figures stand."""
    named = [own.get("published_in") for own in map(_titled, (*SHIPPED, *sources)) if "published" in own]
    return ", ".join(dict.fromkeys(filter(None, named)))


def columns(runs: Mapping[str, Figures]) -> list[str]:
    """The published columns, then those that only the runs have."""
    return list(dict.fromkeys([*COLUMNS, *(column for figures in runs.values() for column in figures)]))


def rows(runs: Mapping[str, Figures], counts: Counts = NONE, sources: Sources = ()) -> list[tuple[str, list[str]]]:
    """Name and cells: the published rows that have a figure in a shown column, then the runs', with their counts."""
    shown = columns(runs)
    known = [(f"{name} (published)", f) for name, f in published(sources).items() if set(f) & set(shown)]
    return [
        (name, [_cell(figures.get(c), counts.get(name, {}).get(c)) for c in shown])
        for name, figures in [*known, *runs.items()]
    ]


def as_markdown(runs: Mapping[str, Figures], counts: Counts = NONE, sources: Sources = ()) -> str:
    """The table for benchmarks.md."""
    lines = [
        ["", *columns(runs)],
        ["---", *["---:"] * len(columns(runs))],
        *([name, *c] for name, c in rows(runs, counts, sources)),
    ]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def as_text(runs: Mapping[str, Figures], counts: Counts = NONE, sources: Sources = (), width: int | None = None) -> str:
    """The table for the terminal, of whose width it is unless told another.

    In a narrow one the counts stand below the scores; then columns in which no run has a figure are left out.
    """
    shown = columns(runs)
    own = [c for c in shown if any(figures.get(c) is not None for figures in runs.values())] or shown
    layouts = [(shown, " "), (shown, "\n"), (own, "\n"), *((own[:i], "\n") for i in range(len(own) - 1, 0, -1))]
    return first_that_fits((_table(runs, counts, sources, some, between) for some, between in layouts), width)


def _table(runs: Mapping[str, Figures], counts: Counts, sources: Sources, shown: Sequence[str], between: str) -> Table:
    title = f"per cent; published figures: {cited(sources)}, blank where it prints none"
    table = Table(title=title, box=SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    table.add_column("")
    for column in shown:
        table.add_column(column, justify="right")
    lines, places = rows(runs, counts, sources), [columns(runs).index(column) for column in shown]
    published = len(lines) - len(runs)
    for i, (name, cells) in enumerate(lines, start=1):
        told = [cells[place].replace(" (", f"{between}(") for place in places]
        if i > published or any(told):
            table.add_row(name, *told, end_section=i == published)
    return table


def part_lines(parts: Mapping[str, float | None]) -> str:
    """Parts of a score on one line: "single 70.0, cross 65.5"; errors as they are."""
    shown = [(name, value) for name, value in parts.items() if value is not None]
    return ", ".join(f"{name} {value:.2f}" if "error" in name else f"{name} {value:.1%}" for name, value in shown)


def _titled(source: Any) -> Mapping[str, Any]:
    """What the class says that gives the column its title: a subclass with another title has not its figures."""
    classes = (source if isinstance(source, type) else type(source)).__mro__
    return next((vars(kind) for kind in classes if vars(kind).get("title")), {})


def _cell(value: float | None, count: str | None) -> str:
    shown = "" if value is None else f"{value:.1f}"
    return f"{shown} ({count})".strip() if count else shown
