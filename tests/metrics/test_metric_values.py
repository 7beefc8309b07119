"""What one episode or one group is worth, against counting by hand and by brute force."""

import pickle
from dataclasses import replace
from itertools import combinations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mgpo.answers import is_right, vote_of
from mgpo.metrics import ClippedBoxRatio, values
from mgpo.training.step_metrics import PassMetrics, Tally, rollout_metrics
from tests.conftest import make_record

corners = st.floats(-100, 1000)
sides = st.floats(0.01, 1000)
boxes = st.builds(lambda x, y, w, h: (x, y, x + w, y + h), corners, corners, sides, sides)


def group_of(answers, right="k"):
    """A group by its answers; "" is none."""
    return [
        make_record(answer=a or None, vote=a or None, right=a == right, reward=float(a == right), rollout=i)
        for i, a in enumerate(answers)
    ]


def test_records_to_which_a_field_does_not_apply_are_left_out():
    records = [make_record(valid_box=None, zoom=None), make_record(valid_box=False, zoom=2.0)]
    assert (values.known("valid_box", records), values.known("zoom", records)) == ([0.0], [2.0])


def test_a_dialogue_without_boxes_has_no_share_of_sub_images():
    silent = make_record(valid_box=None, subimage_right=None)
    assert values.subimage_shares([silent]) == []
    assert values.subimage_shares([silent, make_record(subimage_right=True)]) == [0, 1]


def test_agreement_by_hand():
    """Two boxes share 50 of 150, the third is elsewhere: (1/3 + 0 + 0) / 3; what has no valid box is left out."""
    found = [(0, 0, 10, 10), (5, 0, 15, 10), (50, 50, 60, 60), None]
    assert values.agreement([make_record(box=box) for box in found]) == pytest.approx(1 / 9)
    assert values.agreement([make_record(), make_record(box=None)]) is None
    assert values.agreement([make_record(box=found[0]), make_record(box=found[0], box_picture=2)]) == 0


@given(boxes, boxes)
def test_overlap_is_symmetric_and_a_share(a, b):
    assert values.overlap(a, b) == values.overlap(b, a)
    assert 0 <= values.overlap(a, b) <= 1
    assert values.overlap(a, a) == 1


@given(st.lists(boxes, min_size=2, max_size=5), st.randoms())
def test_agreement_has_no_order_and_is_one_for_equal_boxes(found, random):
    agreed = values.agreement([make_record(box=box) for box in found])
    shuffled = random.sample(found, len(found))
    assert agreed is not None and 0 <= agreed <= 1
    assert agreed == values.agreement([make_record(box=box) for box in shuffled])
    assert values.agreement([make_record(box=found[0])] * 3) == 1


def test_spread_and_silence():
    unequal = [make_record(reward=reward) for reward in (0, 0, 0, 1)]
    assert values.reward_spread(unequal) == pytest.approx((3 / 16) ** 0.5)
    assert values.constant_reward(unequal) == 0
    assert (values.reward_spread(unequal[:3]), values.constant_reward(unequal[:3])) == (0, 1)


@given(st.lists(st.booleans(), min_size=1, max_size=7))
def test_pass_at_k_is_the_share_of_subsets_with_a_right_one(rights):
    group = [make_record(right=right) for right in rights]
    found = [values.pass_at_k(group, k) for k in range(1, len(rights) + 1)]
    for k, value in enumerate(found, 1):
        subsets = [any(subset) for subset in combinations(rights, k)]
        assert value == pytest.approx(sum(subsets) / len(subsets))
    assert found == sorted(found)
    assert values.pass_at_k(group, len(rights) + 1) is None


@pytest.mark.parametrize(
    ("answers", "k", "majority"),
    [
        ("kkl", 3, 1),
        ("lkk", 3, 1),
        ("lklk", 4, 0),  # a tie: l came first
        ("klkl", 4, 1),
        ("klkk" + "llkm", 4, 0.5),
        ("klkk" + "ll", 4, 1),  # what is left over forms no run
        (("", "", "k"), 3, 1),  # who says nothing does not vote
        (("", "", ""), 3, 0),
        ("kk", 3, None),
    ],
)
def test_majority_by_hand(answers, k, majority):
    assert values.majority_at_k(group_of(answers), k) == majority


@given(st.lists(st.sampled_from(["k", "l", "m", ""]), min_size=1, max_size=9))
def test_one_vote_is_accuracy(answers):
    group = group_of(answers)
    assert values.majority_at_k(group, 1) == pytest.approx(sum(r.right for r in group) / len(group))
    assert values.pass_at_k(group, 1) == pytest.approx(values.majority_at_k(group, 1))


@pytest.mark.parametrize(
    ("answer", "choices", "vote"),
    [
        (None, (), None),
        ("", (), None),
        ("EXIT.", (), "exit"),
        ("1,200", (), "1200.0"),
        ("$7$", (), "7.0"),
        ("(b) seven", ("six", "seven"), "B"),
        ("Seven", ("six", "seven"), "B"),
        ("I see a dog", ("six", "seven"), None),
    ],
)
def test_votes(answer, choices, vote):
    assert vote_of(answer, choices) == vote


@given(
    st.sampled_from(["7", "7.0", " 7 .", "Seven", "seven.", "1,200", "1200"]), st.sampled_from(["7", "seven", "1200"])
)
def test_right_answers_vote_like_the_truth(answer, truth):
    if is_right(answer, truth):
        assert vote_of(answer) == vote_of(truth)


def test_clipped_boxes_are_counted_where_the_rule_clips():
    records = [make_record(clipped=True), make_record(clipped=False), make_record(clipped=None)]
    assert rollout_metrics([records], 3)["clipped_box_ratio"] == [1.0, 0.0]
    metric = ClippedBoxRatio()
    metric.update([replace(record, id=str(i)) for i, record in enumerate(records)])
    assert metric.compute() == 0.5
    assert rollout_metrics([records[2:]], 1)["clipped_box_ratio"] == []


def test_rollouts_of_a_step_by_hand():
    """Two groups of two: values that do not apply are missing, and each mean has its own weight."""
    nothing = dict(valid_box=False, reason="no_box", box=None, crops=0, zoom=None, area=None, subimage_right=None)
    records = [
        make_record("a", rollout=0, right=True, reward=1.0),
        make_record("a", rollout=1, fallback=True, lengths=(5, 9), **nothing),
        make_record(
            "b", rollout=0, answer=None, vote=None, turns=1, lengths=(7,), unfinished=True, cut=True, **nothing
        ),
        make_record("b", rollout=1, turns=3, lengths=(7, 3, 1), zoom=2.0),
    ]
    metrics = rollout_metrics([records[:2], records[2:]], 2)
    tally = Tally()
    tally.add_all(metrics)
    assert tally.over_ranks(1) == pytest.approx(
        {
            "reward": 0.25, "accuracy": 0.25, "crop_rate": 0.5, "unfinished": 0.25, "answered": 0.75, "cut": 0.25,
            "valid_box_ratio": 0.5, "zoom_factor": 8**0.5, "crop_area_share": 0.01, "fallback_rate": 0.25,
            "turns": 2.0, "length_turn1": 6.0, "length_turn2": 5.0, "length_turn3": 1.0,
            "reward_spread": 0.25, "pass@2": 0.5, "majority@2": 0.5,
        }
    )  # fmt: skip
    assert metrics["agreement"] == []
    assert len(metrics["zoom_factor"]) == 2 and len(metrics["pass@2"]) == 2


def test_two_ranks_weigh_by_what_they_hold(monkeypatch):
    """Three crops here, one there: the mean is over four."""
    parts, merged = [], {}
    share = lambda part, world_size: parts.append(pickle.loads(pickle.dumps(part))) or parts  # noqa: E731
    monkeypatch.setattr("mgpo.training.step_metrics.share_objects", share)
    for zooms in ([1.0, 2.0, 3.0], [8.0], []):
        tally = Tally()
        tally.add_all({"turns": zooms, "zoom_factor": zooms})
        tally.add_pass(PassMetrics(largest={"gap": torch.tensor(zooms[0])} if zooms else {}))
        merged = tally.over_ranks(3)
    assert merged == pytest.approx({"gap": 8.0, "turns": 3.5, "zoom_factor": 48**0.25})
