"""The page of a study: Markdown with tables, the same numbers as JSON, and curves as SVG."""

from collections.abc import Callable, Sequence
from itertools import product
from pathlib import Path
from statistics import mean, median
from typing import Any

import matplotlib as mpl
from matplotlib.figure import Figure

from mgpo.evaluation.audit_summary import RATES
from mgpo.evaluation.counterfactuals import CROP
from mgpo.tools.study.parts import (
    COLOURS,
    HEADINGS,
    Audits,
    Counterfactuals,
    Curves,
    Differences,
    Part,
    Table,
    Training,
)
from mgpo.tools.study.results import Results, Spread, spread
from mgpo.utils.atomic_files import write_json, write_text

Rows = tuple[list[str], list[list[str]], list[dict[str, Any]]]  # a header, lines below it, and the same as numbers


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
            header, lines, numbers[part.title] = ROWS[type(part)](results, part, names)
            text += ["| " + " | ".join(line) + " |" for line in [header, ["---"] * len(header), *lines]]
        text.append("")
    write_text(folder / "README.md", "\n".join(text), "name another --page")
    write_json(folder / "study.json", numbers, "name another --page")


def _table(results: Results, part: Table, names: dict[str, str]) -> Rows:
    lines, numbers = [], []
    for row in part.rows:
        for split, category in product(results.splits(row), part.categories):
            values = {share: results.share(row, split, share, category) for share in part.shares}
            cells = [_spread(value) for value in values.values()]
            lines.append([names.get(row, row), _place(split, category), *cells])
            numbers.append({"row": row, "split": split, "category": category, **values})
    return ["", "split", *(HEADINGS[share] for share in part.shares)], lines, numbers


def _differences(results: Results, part: Differences, names: dict[str, str]) -> Rows:
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


def _counterfactuals(results: Results, part: Counterfactuals, names: dict[str, str]) -> Rows:
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


def _training(results: Results, part: Training, names: dict[str, str]) -> Rows:
    lines, numbers = [], []
    for row in part.rows:
        steps = results.steps_to(row, part.metric, part.level, part.window)
        silent = results.middle(row, "train/constant_reward", mean)
        seconds = results.middle(row, "speed/seconds_per_step", median)
        reached = [step for step in steps if step is not None]
        ends = f" ({min(reached)}–{max(reached)})" if len(reached) > 1 else ""
        never = f", never in {len(steps) - len(reached)} of {len(steps)}" if len(reached) < len(steps) else ""
        average = f"{mean(reached):.0f}" if reached else "–"
        lines.append([names.get(row, row), average + ends + never, _spread(silent), _spread(seconds)])
        numbers.append({"row": row, "steps": steps, "constant_reward": silent, "seconds_per_step": seconds})
    header = ["", f"steps to {part.level} of {part.metric}", "groups without a signal", "seconds a step (median)"]
    return header, lines, numbers


def _audits(results: Results, part: Audits, names: dict[str, str]) -> Rows:
    """A line for each row and split; the questions that a rate is of are added up over the seeds."""
    lines, numbers = [], []
    for row in part.audited:
        found = results.audits(row)
        for split in found[0]["by_split"] if found else ():
            by_seed = [audit["by_split"][split] for audit in found]
            values: dict[str, Spread | None] = {
                "accuracy": spread([one["accuracy"] for one in by_seed]),
                "margin": _over([one["margin"]["mean"] for one in by_seed]),
            }
            cells = [_spread(values["accuracy"]), _spread(values["margin"])]
            for rate in part.rates:
                told = [one["rates"][rate] for one in by_seed]
                values[rate] = _over([each["share"] for each in told])
                cells.append(f"{_spread(values[rate])}, {sum(e['count'] for e in told)} of {sum(e['n'] for e in told)}")
            lines.append([names.get(row, row), split, *cells])
            numbers.append({"row": row, "split": split, **values})
    return (
        ["", "split", "accuracy", "evidence margin, nats", *(RATES[rate].words for rate in part.rates)],
        lines,
        numbers,
    )


ROWS: dict[type, Callable[..., Rows]] = {
    Table: _table,
    Differences: _differences,
    Training: _training,
    Audits: _audits,
    Counterfactuals: _counterfactuals,
}


def _over(values: Sequence[float | None]) -> Spread | None:
    known = [value for value in values if value is not None]
    return spread(known) if known else None


def draw_curves(path: Path, results: Results, part: Curves, names: dict[str, str]) -> dict[str, Any]:
    """Draw, and give back steps and the mean line of each run."""
    mpl.rcParams["svg.hashsalt"] = "mgpo"  # the same figure is the same file
    figure = Figure(figsize=(6.4, 3.6), layout="constrained")
    axes = figure.subplots()
    numbers = {}
    for colour, row in zip(COLOURS, part.rows):
        steps, series = results.curve(row, part.metric, part.window)
        means = [sum(values) / len(values) for values in zip(*series)]
        axes.plot(steps, means, color=colour, label=names.get(row, row))
        low, high = [min(v) for v in zip(*series)], [max(v) for v in zip(*series)]
        axes.fill_between(steps, low, high, color=colour, alpha=0.2, linewidth=0)
        numbers[row] = {"steps": steps, "mean": means, "low": low, "high": high}
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
