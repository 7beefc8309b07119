"""Charts of a run, whose axes and legends are words: curves over its updates, bars of shares."""

import csv
import io
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from textwrap import fill
from typing import Any

from matplotlib.figure import Figure
from PIL import Image

WORDS = {  # of the metrics' names in the loggers that say too little by themselves
    "accuracy": "share of right answers",
    "agreement": "overlap of a question's usable boxes",
    "answered": "share of episodes with an answer",
    "black": "share of right answers with black crops",
    "clip_fraction": "share of tokens whose ratio was clipped",
    "clipped_box_ratio": "share of usable boxes that were cut to the picture",
    "crop": "share of right answers with a crop",
    "crop_area_share": "area of the crop, as a share of the picture's",
    "crop_gain": "share of questions right only with the crop",
    "crop_harm": "share of questions right only without the crop",
    "crop_rate": "share of episodes with a crop",
    "cut": "share of episodes with a reply at the token limit",
    "fallback_rate": "share of episodes that went on after an unusable box",
    "grad_norm": "norm of the gradient",
    "kl": "KL divergence from the start",
    "lr": "learning rate",
    "margin": "evidence margin in nats",
    "majority": "share of questions whose commonest answer is right",
    "no_signal": "share of groups without a signal",
    "pass": "share of questions with a right rollout",
    "random_region": "share of right answers with random crops",
    "reward": "mean reward",
    "reward_spread": "spread of a question's rewards",
    "subimage_accuracy": "share of usable boxes whose part alone answers",
    "subimage_share": "share of questions whose part alone answers",
    "turns": "turns an episode",
    "unfinished": "share of unfinished episodes",
    "valid_box_ratio": "share of usable boxes",
    "zoom_factor": "times sharper in the crop",
}


def in_words(name: str) -> str:
    """A logged metric's name, such as train/valid_box_ratio, as it stands at an axis or in a legend."""
    part, _, metric = name.rpartition("/")
    metric, _, k = metric.partition("@")
    words = WORDS.get(metric) or re.sub(r"(?<=[a-z])(?=[0-9])", " ", _spaced(metric))
    words = f"{words}, of {k} rollouts" if k else words
    return words if part in ("", "train") else f"{words}, {_spaced(part)}"


def _spaced(name: str) -> str:
    return re.sub(r"[_/]+", " ", name)


def curves(run: Path, names: Sequence[str]) -> Image.Image:
    """Curves of a run's metrics.csv over its optimiser updates. Raises KeyError for a metric that was not logged."""
    return _drawn(curves_figure(run, names))


def curves_figure(run: Path, names: Sequence[str]) -> Figure:
    """The same, as a figure of matplotlib."""
    with (run / "metrics.csv").open(encoding="utf-8") as lines:
        rows = list(csv.DictReader(lines))
    figure, axes = _axes(2.8)
    for name in names:
        logged = [row for row in rows if row[name]]
        values = [float(row[name]) for row in logged]
        axes.plot([int(row["step"]) for row in logged], values, marker=".", label=in_words(name))
    axes.set_xlabel("optimiser updates")
    axes.set_ylabel(in_words(names[0]) if len(names) == 1 else "value")
    if len(names) > 1:
        figure.legend(frameon=False, loc="outside upper left", ncols=2)
    return figure


def bars(series: Mapping[str, Mapping[str, float]], label: str) -> Image.Image:
    """Bars of the same values in each of several series, such as before and after training, by their names."""
    return _drawn(bars_figure(series, label))


def bars_figure(series: Mapping[str, Mapping[str, float]], label: str) -> Figure:
    """The same, as a figure of matplotlib."""
    names = list(dict.fromkeys(name for values in series.values() for name in values))
    figure, axes = _axes(1.0 + 0.3 * len(names) * (1 + len(series)) / 2)
    high = 0.8 / len(series)
    for i, (of, values) in enumerate(series.items()):
        shown = [values.get(name, 0.0) for name in names]
        drawn = axes.barh([place + i * high for place in range(len(names))], shown, high, label=of)
        axes.bar_label(drawn, [f"{value:.2g}" for value in shown], padding=3)
    axes.set_yticks([place + 0.4 - high / 2 for place in range(len(names))], [fill(name, 32) for name in names])
    axes.invert_yaxis()
    axes.margins(x=0.15)
    axes.set_xlabel(label)
    if len(series) > 1:
        figure.legend(frameon=False, loc="outside upper left", ncols=len(series))
    return figure


def _axes(height: float) -> tuple[Figure, Any]:
    figure = Figure(figsize=(7, height), layout="constrained")
    return figure, figure.subplots()


def _drawn(figure: Figure) -> Image.Image:
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=80)
    return Image.open(file)
