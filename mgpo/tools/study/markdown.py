"""The page of a study: Markdown with tables, the same numbers as JSON, and curves as SVG."""

import json
from collections.abc import Container, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.figure import Figure

from mgpo.errors import UserError
from mgpo.evaluation.counterfactuals import CROP
from mgpo.tools.study.results import Results, Spread

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


Part = Table | Differences | Curves | Counterfactuals


def check_parts(parts: Sequence[Part], runs: Container[str]) -> None:
    """Before days of runs. Raises UserError for a name that a part misspells, or more curves than colours."""
    for part in parts:
        named = {
            Table: lambda part: part.rows,
            Differences: lambda part: [name for pair in part.pairs for name in pair],
            Curves: lambda part: part.rows,
            Counterfactuals: lambda part: part.swapped,
        }[type(part)](part)
        for name in named:
            if name not in runs:
                raise UserError(f"parts, {part.title!r}: there is no run {name!r}")
        for share in part.shares if isinstance(part, Table) else ():
            if share not in HEADINGS:
                raise UserError(
                    f"parts, {part.title!r}: there is no share {share!r}; take some of {', '.join(HEADINGS)}"
                )
        if isinstance(part, Curves) and len(part.rows) > len(COLOURS):
            raise UserError(f"parts, {part.title!r}: {len(part.rows)} curves; {len(COLOURS)} can be told apart")


def write_study(
    folder: Path, results: Results, parts: Sequence[Part], names: dict[str, str], origin: list[str]
) -> None:
    """Write README.md, study.json and one SVG a set of curves into the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    text = ["# Study", "", *origin, ""]
    numbers: dict[str, Any] = {}
    for part in parts:
        text += [f"## {part.title}", ""] + ([part.note, ""] if part.note else [])
        if isinstance(part, Curves):
            drawn = _slug(part.title) + ".svg"
            numbers[part.title] = draw_curves(folder / drawn, results, part, names)
            text += [f"![{part.title}]({drawn})", "", *_curve_ends(numbers[part.title], names)]
        else:
            header, lines, numbers[part.title] = _rows(results, part, names)
            text += ["| " + " | ".join(line) + " |" for line in [header, ["---"] * len(header), *lines]]
        text.append("")
    (folder / "README.md").write_text("\n".join(text))
    (folder / "study.json").write_text(json.dumps(numbers, indent=1, ensure_ascii=False) + "\n")


def _rows(results: Results, part: Part, names: dict[str, str]) -> tuple[list[str], list[list[str]], list[dict]]:
    if isinstance(part, Table):
        return _table(results, part, names)
    if isinstance(part, Differences):
        return _differences(results, part, names)
    assert isinstance(part, Counterfactuals)
    return _counterfactuals(results, part, names)


def _table(results: Results, part: Table, names: dict[str, str]) -> tuple[list[str], list[list[str]], list[dict]]:
    lines, numbers = [], []
    for row in part.rows:
        for split, category in product(results.splits(row), part.categories):
            values = {share: results.share(row, split, share, category) for share in part.shares}
            cells = [_spread(value) for value in values.values()]
            lines.append([names.get(row, row), _place(split, category), *cells])
            numbers.append({"row": row, "split": split, "category": category, **values})
    return ["", "split", *(HEADINGS[share] for share in part.shares)], lines, numbers


def _differences(
    results: Results, part: Differences, names: dict[str, str]
) -> tuple[list[str], list[list[str]], list[dict]]:
    lines, numbers = [], []
    for name, minus in part.pairs:
        for split, category in product(results.splits(name), part.categories):
            value = results.difference(name, minus, split, category)
            low, high = (100 * v for v in value["interval"] or (float("nan"),) * 2)
            cell = f"{100 * value['difference']:+.1f} ({low:+.1f} to {high:+.1f})" if value["n"] else "–"
            label = f"{names.get(name, name)} − {names.get(minus, minus)}"
            lines.append([label, _place(split, category), cell])
            numbers.append({"row": name, "minus": minus, "split": split, "category": category, **value})
    return ["", "split", "points (95 % interval over questions)"], lines, numbers


def _counterfactuals(
    results: Results, part: Counterfactuals, names: dict[str, str]
) -> tuple[list[str], list[list[str]], list[dict]]:
    lines, numbers = [], []
    for row in part.swapped:
        for split in results.splits(row):
            for variant, value in results.counterfactuals(row, split).items():
                low, high = (100 * v for v in value["interval"])
                lost = "" if variant == CROP else f"{100 * value['drop']['mean']:.1f} ({low:.1f} to {high:.1f})"
                sides = ["", ""] if variant == CROP else [f"{value[key]['mean']:.1f}" for key in ("gain", "harm")]
                lines.append([names.get(row, row), split, variant, _spread(value["accuracy"]), lost, *sides])
                numbers.append({"row": row, "split": split, "variant": variant, **value})
    header = ["", "split", "shown", "accuracy", "drop in points", "right only with the crop", "right only without"]
    return header, lines, numbers


def draw_curves(path: Path, results: Results, part: Curves, names: dict[str, str]) -> dict[str, Any]:
    """Draw, and give back steps and the mean line of each run."""
    mpl.rcParams["svg.hashsalt"] = "mgpo"  # the same figure is the same file
    figure = Figure(figsize=(6.4, 3.6), layout="constrained")
    axes = figure.subplots()
    numbers = {}
    for colour, row in zip(COLOURS, part.rows):
        steps, series = results.curve(row, part.metric, part.window)
        means = [sum(values) / len(values) for values in zip(*series)]
        axes.plot(steps[: len(means)], means, color=colour, label=names.get(row, row))
        low, high = [min(v) for v in zip(*series)], [max(v) for v in zip(*series)]
        axes.fill_between(steps[: len(means)], low, high, color=colour, alpha=0.2, linewidth=0)
        numbers[row] = {"steps": steps[: len(means)], "mean": means, "low": low, "high": high}
    axes.set(xlabel="step", ylabel=part.metric.split("/")[-1].replace("_", " "))
    if all(0 <= value <= 1 for line in numbers.values() for value in (*line["low"], *line["high"])):
        axes.set_ylim(0, 1.02)  # shares are seen whole
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False)
    figure.savefig(path, metadata={"Date": None})
    return numbers


def _curve_ends(numbers: dict[str, Any], names: dict[str, str]) -> list[str]:
    lines = ["| | first | last |", "| --- | --- | --- |"]
    for row, line in numbers.items():
        ends = [f"{line['mean'][i]:.2f} ({line['low'][i]:.2f}–{line['high'][i]:.2f})" for i in (0, -1)]
        lines.append(f"| {names.get(row, row)} | {ends[0]} | {ends[1]} |")
    return lines


def _spread(value: Spread | None) -> str:
    if value is None:
        return "–"
    if value["seeds"] == 1:
        return f"{value['mean']:.3f}"
    return f"{value['mean']:.3f} ({value['low']:.3f}–{value['high']:.3f})"


def _place(split: str, category: str) -> str:
    if not category:
        return split
    return f"{split} (not {category[1:]})" if category.startswith("!") else f"{split} ({category})"


def _slug(title: str) -> str:
    return "-".join("".join(c if c.isalnum() else " " for c in title.lower()).split())
