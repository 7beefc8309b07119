"""The metrics over records: by hand, whatever the order, each episode once."""

import math
import pickle

import matplotlib as mpl
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib import pyplot as plt

from mgpo import metrics as m
from mgpo.errors import UserError
from mgpo.evaluation.report import summarise
from mgpo.images.boxes import REASONS
from tests.conftest import make_record

mpl.use("Agg")
NO_CROP = dict(valid_box=False, reason="no_box", box=None, crops=0, zoom=None, area=None, subimage_right=None)
RECORDS = [
    make_record("a", rollout=0, right=True, vote="k", reward=1.0, subimage_right=True, zoom=2.0, area=0.25),
    make_record("a", rollout=1, right=True, vote="k", reward=1.0, box=(5.0, 0.0, 15.0, 10.0), zoom=8.0, area=0.75),
    make_record("a", rollout=2, reward=-0.5, fallback=True, **NO_CROP),
    make_record("b", rollout=0, split="ood", category="count", turns=3),
    make_record("b", rollout=1, split="ood", category="count", answer=None, vote=None, turns=1, **NO_CROP),
    make_record("b", rollout=2, split="ood", category="count", turns=1, **{**NO_CROP, "reason": "outside"}),
]
ROWS = [
    {"id": "a", "split": "val", "category": "letter", "crop": True, "no tools": False, "black": True},
    {"id": "b", "split": "val", "category": "count", "crop": False, "no tools": True, "black": True},
    {"id": "c", "split": "ood", "category": "count", "crop": True, "no tools": False, "black": False},
    {"id": "d", "split": "ood", "category": "count", "crop": True, "no tools": True, "black": True},
]
SPREAD = 0.5**0.5  # of 1, 1 and -0.5: the mean is 0.5, the squares are 0.25, 0.25 and 1
BY_HAND = {  # all records, split val, split ood
    m.Accuracy: (2 / 6, 2 / 3, 0),
    m.ValidBoxRatio: (3 / 6, 2 / 3, 1 / 3),
    m.SubimageAccuracy: (1 / 3, 1 / 2, 0),
    m.SubimageShare: (1 / 6, 1 / 3, 0),
    m.ZoomFactor: (4, 4, 4),
    m.CropAreaShare: (1.01 / 3, 0.5, 0.01),
    m.TurnsPerEpisode: (11 / 6, 2, 5 / 3),
    m.CropRate: (3 / 6, 2 / 3, 1 / 3),
    m.FallbackRate: (1 / 6, 1 / 3, 0),
    m.RewardMean: (1.5 / 6, 0.5, 0),
    m.GroupAgreement: (1 / 3, 1 / 3, math.nan),
    m.GroupSpread: (SPREAD / 2, SPREAD, 0),
    m.ConstantRewardGroups: (1 / 2, 0, 1),
    lambda by=None: m.PassAtK(2, by): (1 / 2, 1, 0),
    lambda by=None: m.MajorityAtK(3, by): (1 / 2, 1, 0),
    # two of three agree in either group, and one of the two is right
    lambda by=None: m.VoteCalibration(10, by): (2 / 3 - 1 / 2, 1 / 3, 2 / 3),
}
SCALARS = [*BY_HAND, lambda by=None: m.VoteCalibration(3, by)]


def computed(make, records=RECORDS, by=None):
    metric = make(by=by)
    metric.update(records)
    return metric.compute()


@pytest.mark.parametrize(("make", "expected"), BY_HAND.items())
def test_by_hand(make, expected):
    assert computed(make).item() == pytest.approx(expected[0])
    by_split = computed(make, by="split")
    assert list(by_split) == ["ood", "val"]
    assert by_split["val"].item() == pytest.approx(expected[1])
    assert by_split["ood"].item() == pytest.approx(expected[2], nan_ok=True)
    assert list(computed(make, by="category")) == ["count", "letter"]


def test_reasons_are_shares_of_the_boxes_looked_for():
    reasons = computed(m.InvalidReasons)
    assert reasons.keys() == REASONS.keys()
    assert (reasons["no_box"], reasons["outside"], reasons["inverted"]) == (2 / 6, 1 / 6, 0)
    assert computed(m.InvalidReasons, by="split")["val"]["no_box"] == pytest.approx(1 / 3)


@pytest.mark.parametrize(
    ("make", "all_rows", "ood"),
    [
        (m.CropGain, 2 / 4, 1 / 2),
        (m.CropHarm, 1 / 4, 0),
        (lambda by=None: m.CropGain("black", by), 1 / 4, 1 / 2),
        (lambda by=None: m.CropHarm("black", by), 1 / 4, 0),
    ],
)
def test_gain_and_harm(make, all_rows, ood):
    assert computed(make, ROWS).item() == all_rows
    assert computed(make, ROWS, "split")["ood"].item() == ood


@pytest.mark.parametrize("make", SCALARS)
def test_nothing_is_not_a_number(make):
    assert math.isnan(computed(make, []))
    assert computed(make, [], by="split") == {}


episodes = st.builds(
    lambda i, k, right, vote, box, zoom, reward: make_record(
        f"q{i}", rollout=k, right=right, vote=vote, reward=reward, zoom=zoom, crops=int(zoom is not None),
        valid_box=box is not None, reason=None if box else "no_box", subimage_right=right if box else None,
        box=(float(box), 0.0, box + 4.0, 3.0) if box else None, area=zoom and 1 / zoom**2,
    ),
    st.integers(0, 3), st.integers(0, 4), st.booleans(), st.sampled_from(["k", "l", None]),
    st.none() | st.integers(1, 9), st.none() | st.floats(1, 9), st.floats(-1, 1),
)  # fmt: skip
some_records = st.lists(episodes, max_size=12, unique_by=lambda r: (r.id, r.rollout))


@pytest.mark.parametrize("make", [*SCALARS, m.InvalidReasons])
@settings(max_examples=15)
@given(records=some_records, random=st.randoms(), cut=st.integers(0, 12))
def test_order_batches_and_duplicates_change_nothing(make, records, random, cut):
    once = computed(make, records)
    metric = make()
    shuffled = random.sample(records, len(records))
    for part in (shuffled[:cut], shuffled[cut:], records[:cut]):
        metric.update(part)
    again = metric.compute()
    once, again = (list(v.values()) if isinstance(v, dict) else [v] for v in (once, again))
    torch.testing.assert_close(once, again, rtol=0, atol=0, equal_nan=True)
    low = -1 if metric.plot_lower_bound is None else metric.plot_lower_bound  # of the rewards above
    high = 9 + 1e-9 if metric.plot_upper_bound is None else metric.plot_upper_bound  # rounded, a mean may be above
    assert all(math.isnan(value) or low <= value <= high for value in again)


@settings(deadline=None)
@given(records=some_records)
def test_the_report_says_the_same(records):
    summary = summarise(records)
    for name, make in {
        "accuracy": m.Accuracy, "valid_box_ratio": m.ValidBoxRatio, "crop_rate": m.CropRate,
        "subimage_accuracy": m.SubimageAccuracy, "subimage_share": m.SubimageShare, "zoom_factor": m.ZoomFactor,
        "crop_area_share": m.CropAreaShare, "turns": m.TurnsPerEpisode, "fallback_rate": m.FallbackRate,
    }.items():  # fmt: skip
        value = computed(make, records).item()
        assert summary[name] == (None if math.isnan(value) else value), name


@pytest.mark.parametrize("make", [*SCALARS, m.InvalidReasons])
def test_forward_gives_the_batch_and_keeps_everything(make):
    metric = make()
    first, second = metric(RECORDS[:3]), metric(RECORDS[3:])
    torch.testing.assert_close(first, computed(make, RECORDS[:3]), equal_nan=True)
    torch.testing.assert_close(second, computed(make, RECORDS[3:]), equal_nan=True)
    torch.testing.assert_close(metric.compute(), computed(make), equal_nan=True)


def test_reset_forgets():
    metric = m.Accuracy()
    metric.update(RECORDS[:2])
    metric.reset()
    metric.update(RECORDS[2:])
    assert metric.compute() == 0


def test_steps_are_kept_apart():
    before, after = make_record("a"), make_record("a", step=5, right=True)
    assert computed(m.Accuracy, [before, after]) == 0.5
    assert computed(m.ConstantRewardGroups, [before, after]) == 1


def test_hostile_text_changes_nothing():
    names = ["\n", "\u2028", "\ud800", '"]}', "é" * 999, ""]
    records = [make_record(name, category=name, answer=name, vote=name, right=True) for name in names]
    metric = pickle.loads(pickle.dumps(m.Accuracy("category")))
    metric.update(records)
    assert metric.compute() == dict.fromkeys(names, 1)


def test_bins_hold_their_upper_ends():
    """0.7 · 10 is more than 7 in floating point; it belongs to (0.6, 0.7] all the same."""
    group = [make_record(vote="k" if i < 7 else f"{i}", rollout=i) for i in range(10)]
    assert list(m.VoteCalibration(10).binned(group)) == [6]


def test_confidence_that_comes_true_is_calibrated():
    """Three of four agree, and in three of four questions they are right."""
    records = [
        make_record(f"q{i}", rollout=k, vote="k" if k < 3 else "l", right=(k < 3) == (i < 3))
        for i in range(4)
        for k in range(4)
    ]
    assert computed(m.VoteCalibration, records) == 0


@pytest.mark.parametrize("make", [m.Accuracy, m.TurnsPerEpisode, lambda: m.PassAtK(2)])
def test_scalars_are_drawn_as_points(make):
    metric = make()
    metric.update(RECORDS)
    figure, axes = metric.plot()
    assert axes.lines[0].get_ydata() == [metric.compute().item()]
    plt.close(figure)


def test_labels_are_drawn_as_bars():
    metric = m.InvalidReasons("split")
    metric.update(RECORDS)
    _, axes = metric.plot()
    assert len(axes.patches) == 2 * len(REASONS)
    labels = [label.get_text() for label in axes.get_xticklabels()]
    assert axes.get_ylabel() == "invalid reasons" and "val too small" in labels
    assert not [label for label in labels if "_" in label]
    _, axes = m.Accuracy("split").plot({"val": torch.tensor(0.5), "ood": torch.tensor(0.25)})
    assert [bar.get_height() for bar in axes.patches] == [0.5, 0.25]


def test_calibration_is_drawn_as_a_reliability_diagram():
    metric = m.VoteCalibration(3)
    metric.update(RECORDS)
    _, axes = metric.plot()
    assert [(bar.get_x() + bar.get_width() / 2, bar.get_height()) for bar in axes.patches] == [
        (pytest.approx(0.5), 0.5)
    ]
    assert [text.get_text() for text in axes.texts] == ["2"]


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: m.Accuracy("colour"), "it must be split, category or nothing"),
        (lambda: m.PassAtK(0), "needs k >= 1"),
        (lambda: m.MajorityAtK(-1), "needs k >= 1"),
        (lambda: m.VoteCalibration(0), "needs bins >= 1"),
        (lambda: m.CropGain("white").update(ROWS), "question a was not answered with 'white'"),
    ],
)
def test_mistakes_get_one_sentence(make, words):
    with pytest.raises(UserError, match=words):
        make()


@pytest.mark.parametrize("given", ["a", None, [1.0, "b"], {"x": "a"}])
def test_a_metric_of_one_s_own_gives_numbers(given):
    class Own(m.RecordMetric):
        def judge(self, records):
            return given

    metric = Own(by="split")
    metric.update(RECORDS)
    with pytest.raises(UserError, match=r"the metric Own gives .*; it should give a number, or numbers by label"):
        metric.compute()
