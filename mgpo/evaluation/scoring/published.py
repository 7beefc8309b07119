"""The figures that the paper prints (arXiv 2507.05920), and a run's own beside them."""

from collections.abc import Mapping, Sequence

from rich.box import SIMPLE_HEAD
from rich.table import Table

from mgpo.utils.terminal_tables import first_that_fits

SOURCE = "arXiv 2507.05920"
COLUMNS = ("V*", "MME-RW-Lite", "HR-4K", "HR-8K", "POPE")
Figures = Mapping[str, float | None]  # per cent, by column
Counts = Mapping[str, Mapping[str, str]]  # "188 of 191" by run and column, where not all questions were scored
NONE: Counts = {}

PUBLISHED: dict[str, dict[str, float]] = {
    "Qwen2.5-VL-7B": {"V*": 58.6, "MME-RW-Lite": 46.1},
    "Qwen2.5-VL-7B + SFT": {"V*": 71.7, "MME-RW-Lite": 58.7},
    "Qwen2.5-VL-7B + GRPO": {"V*": 71.2, "MME-RW-Lite": 55.1, "HR-4K": 69.8, "HR-8K": 66.3, "POPE": 84.5},
    "Qwen2.5-VL-7B + MGPO": {"V*": 76.4, "MME-RW-Lite": 60.5, "HR-4K": 74.2, "HR-8K": 71.2, "POPE": 86.1},
    "Qwen2.5-VL-3B + GRPO": {"V*": 66.5, "MME-RW-Lite": 50.3, "HR-4K": 67.9, "HR-8K": 64.9, "POPE": 82.5},
    "Qwen2.5-VL-3B + MGPO": {"V*": 67.0, "MME-RW-Lite": 52.2, "HR-4K": 70.9, "HR-8K": 68.1, "POPE": 83.2},
    "o1": {"V*": 69.7},
    "GPT-4o": {"V*": 73.9, "MME-RW-Lite": 45.2},
    "counting: Qwen2.5-VL-7B": {"FSC-147": 59.9, "Pixmo-Count": 13.0},
    "counting: + SFT": {"FSC-147": 72.7, "Pixmo-Count": 24.1},
    "counting: + MGPO, accuracy reward": {"FSC-147": 81.0, "Pixmo-Count": 35.0},
    "counting: + MGPO, accuracy and point reward": {"FSC-147": 81.9, "Pixmo-Count": 34.9},
}  # fmt: skip


def columns(runs: Mapping[str, Figures]) -> list[str]:
    """The published columns, then those that only the runs have."""
    return list(dict.fromkeys([*COLUMNS, *(column for figures in runs.values() for column in figures)]))


def rows(runs: Mapping[str, Figures], counts: Counts = NONE) -> list[tuple[str, list[str]]]:
    """Name and cells: the published rows that have a figure in a shown column, then the runs', with their counts."""
    shown = columns(runs)
    published = [(f"{name} (published)", figures) for name, figures in PUBLISHED.items() if set(figures) & set(shown)]
    return [
        (name, [_cell(figures.get(c), counts.get(name, {}).get(c)) for c in shown])
        for name, figures in [*published, *runs.items()]
    ]


def as_markdown(runs: Mapping[str, Figures], counts: Counts = NONE) -> str:
    """The table for benchmarks.md."""
    lines = [
        ["", *columns(runs)],
        ["---", *["---:"] * len(columns(runs))],
        *([name, *c] for name, c in rows(runs, counts)),
    ]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def as_text(runs: Mapping[str, Figures], counts: Counts = NONE, width: int | None = None) -> str:
    """The table for the terminal, of whose width it is unless told another.

    In a narrow one the counts stand below the scores; then columns in which no run has a figure are left out.
    """
    shown = columns(runs)
    own = [c for c in shown if any(figures.get(c) is not None for figures in runs.values())] or shown
    layouts = [(shown, " "), (shown, "\n"), (own, "\n"), *((own[:i], "\n") for i in range(len(own) - 1, 0, -1))]
    return first_that_fits((_table(runs, counts, some, between) for some, between in layouts), width)


def _table(runs: Mapping[str, Figures], counts: Counts, shown: Sequence[str], between: str) -> Table:
    title = f"per cent; published figures: {SOURCE}, blank where it prints none"
    table = Table(title=title, box=SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    table.add_column("")
    for column in shown:
        table.add_column(column, justify="right")
    places = [columns(runs).index(column) for column in shown]
    published = len(rows(runs)) - len(runs)
    for i, (name, cells) in enumerate(rows(runs, counts), start=1):
        told = [cells[place].replace(" (", f"{between}(") for place in places]
        if i > published or any(told):
            table.add_row(name, *told, end_section=i == published)
    return table


def part_lines(parts: Mapping[str, float | None], names: Sequence[str] = ()) -> str:
    """Parts of a score on one line: "single 70.0, cross 65.5"; errors as they are."""
    shown = [(name, value) for name, value in parts.items() if value is not None and (not names or name in names)]
    return ", ".join(f"{name} {value:.2f}" if "error" in name else f"{name} {value:.1%}" for name, value in shown)


def _cell(value: float | None, count: str | None) -> str:
    shown = "" if value is None else f"{value:.1f}"
    return f"{shown} ({count})".strip() if count else shown
