"""The figures that benchmarks' papers print, foremost this method's, and a run's own beside them."""

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table

from mgpo.data.benchmarks import FSC147, POPE, HRBench4K, HRBench8K, MMERealWorldLite, PixmoCount, VStar

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


def as_text(runs: Mapping[str, Figures], counts: Counts = NONE, sources: Sources = (), width: int = 130) -> str:
    """The table for the terminal."""
    table = Table(title=f"per cent; published figures: {cited(sources)}, blank where it prints none")
    table.add_column("")
    for column in columns(runs):
        table.add_column(column, justify="right")
    lines = rows(runs, counts, sources)
    for i, (name, cells) in enumerate(lines, start=1):
        table.add_row(name, *cells, end_section=i == len(lines) - len(runs))
    return render(table, width)


def render(table: Table, width: int = 130) -> str:
    """A table without colours."""
    console = Console(width=width, color_system=None)
    with console.capture() as capture:
        console.print(table)
    return capture.get()


def part_lines(parts: Mapping[str, float | None], names: Sequence[str] = ()) -> str:
    """Parts of a score on one line: "single 70.0, cross 65.5"; errors as they are."""
    shown = [(name, value) for name, value in parts.items() if value is not None and (not names or name in names)]
    return ", ".join(f"{name} {value:.2f}" if "error" in name else f"{name} {value:.1%}" for name, value in shown)


def _titled(source: Any) -> Mapping[str, Any]:
    """What the class says that gives the column its title: a subclass with another title has not its figures."""
    classes = (source if isinstance(source, type) else type(source)).__mro__
    return next((vars(kind) for kind in classes if vars(kind).get("title")), {})


def _cell(value: float | None, count: str | None) -> str:
    shown = "" if value is None else f"{value:.1f}"
    return f"{shown} ({count})".strip() if count else shown
