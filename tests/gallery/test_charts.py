"""Charts speak in words: no name of a metric, no key."""

import csv

import pytest

from mgpo.gallery.charts import WORDS, bars, bars_figure, curves, curves_figure, in_words
from mgpo.training.evaluating import evaluation_metrics
from mgpo.training.step_metrics import EPISODE

LOGGED = [
    *(f"train/{name}" for name in (*EPISODE, "agreement", "majority@8", "pass@8", "reward_spread", "no_signal")),
    *(f"train/{name}" for name in ("entropy_turn1", "length_turn12", "kl", "clip_fraction", "sampler_gap", "lr")),
    *(f"val/{name}" for name in evaluation_metrics()),
    *(f"my_split/v2/{name}" for name in evaluation_metrics()),
    "train/loss", "memory/resident_gib", "speed/tokens_per_s", "warning/image_blind",
]  # fmt: skip


@pytest.fixture
def run(tmp_path):
    """A run's folder in which every other row has a value."""
    with (tmp_path / "metrics.csv").open("w") as file:
        rows = csv.DictWriter(file, ["step", *LOGGED, "never"])
        rows.writeheader()
        rows.writerows({"step": step, **{name: step / 10 for name in LOGGED if step % 2}} for step in range(5))
    return tmp_path


def texts(figure):
    """All words of a figure but the numbers at its ticks."""
    (axes,) = figure.axes
    legends = [text.get_text() for legend in figure.legends for text in legend.get_texts()]
    return [axes.get_xlabel(), axes.get_ylabel(), axes.get_title(), *legends]


@pytest.mark.parametrize("names", [LOGGED, ["train/valid_box_ratio"]], ids=["many", "one"])
def test_curves_have_words_and_no_keys(run, names):
    figure = curves_figure(run, names)
    words = texts(figure)
    assert words[0] == "optimiser updates" and words[1]
    assert not [word for word in words if "/" in word or "_" in word]
    assert len(figure.legends) == (len(names) > 1)
    assert [list(line.get_xdata()) for line in figure.axes[0].lines] == [[1, 3]] * len(names)


def test_the_only_curve_names_the_axis(run):
    assert texts(curves_figure(run, ["train/valid_box_ratio"]))[1] == "share of usable boxes"


def test_no_two_metrics_of_a_chart_have_the_same_words():
    assert len({in_words(name) for name in LOGGED}) == len(LOGGED)
    assert not [words for words in WORDS.values() if "_" in words or "/" in words]


def test_every_metric_of_an_evaluation_is_known():
    assert WORDS.keys() >= evaluation_metrics().keys()


def test_a_metric_that_was_not_logged_is_told(run):
    with pytest.raises(KeyError, match="train/none"):
        curves(run, ["train/none"])
    assert curves(run, ["never"]).width == curves(run, LOGGED[:3]).width


def test_bars_are_named_and_their_series_too():
    series = {"before training": {"no usable box": 3, "misread": 1}, "after training": {"misread": 2}}
    figure = bars_figure(series, "wrong answers")
    (axes,) = figure.axes
    assert [label.get_text() for label in axes.get_yticklabels()] == ["no usable box", "misread"]
    assert texts(figure) == ["wrong answers", "", "", "before training", "after training"]
    assert [bar.get_width() for bar in axes.patches] == [3, 1, 0, 2]
    assert bars_figure({"": series["after training"]}, "wrong answers").legends == []
    assert bars(series, "wrong answers").format == "PNG"
