"""Other pictures in place of the crop, and what a paired comparison says."""

from functools import partial

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mgpo.dialogues import TwoTurn
from mgpo.evaluation.counterfactuals import CROP, NO_TOOLS, SWAPS, compare, counterfactuals
from mgpo.images.views import View
from mgpo.metrics.intervals import paired_bootstrap, wilson
from mgpo.rewards import ExactAnswer
from mgpo.rollout.episodes import roll_out
from mgpo.rollout.in_process import Sampling
from tests.conftest import make_question, noise_image
from tests.rollout.test_rollout import Scripted

IMAGE = noise_image(448, 448, 1)
FIRST = View((0, 0, 448, 448), (112, 112))
CROPPED = View((100, 200, 300, 350), (84, 56))


def test_black_is_black_and_the_original_is_the_first_view():
    assert SWAPS["black"](IMAGE, CROPPED, FIRST).getextrema() == ((0, 0),) * 3
    assert SWAPS["black"](IMAGE, CROPPED, FIRST).size == CROPPED.size
    assert SWAPS["original"](IMAGE, CROPPED, FIRST).tobytes() == FIRST.pixels(IMAGE).tobytes()


@given(st.integers(0, 440), st.integers(0, 440), st.integers(1, 448), st.integers(1, 448))
def test_a_random_region_has_the_size_of_the_true_one_and_is_the_same_every_time(x, y, width, height):
    view = View((x, y, min(448, x + width), min(448, y + height)), (28, 28))
    shown = SWAPS["random region"](IMAGE, view, FIRST)
    assert shown.size == view.size
    assert shown.tobytes() == SWAPS["random region"](IMAGE, view, FIRST).tobytes()


@pytest.fixture(scope="module")
def played(policy):
    samples = [
        (make_question(IMAGE, "q0"), IMAGE),
        (make_question(noise_image(640, 320, 2), "q1"), noise_image(640, 320, 2)),
    ]
    return {
        name: roll_out(policy, Scripted(), TwoTurn(), samples, 2, Sampling(max_new_tokens=8), (0, 0), swap=swap)
        for name, swap in {"none": None, **SWAPS}.items()
    }


def test_only_the_crop_is_swapped(played):
    for name in SWAPS:
        for true, swapped in zip(played["none"], played[name]):
            assert true.turns[0].prompt.images[0].patches.equal(swapped.turns[0].prompt.images[0].patches)
            assert true.turns[0].reply == swapped.turns[0].reply
            shown = [t.turns[1].prompt.images[0].patches for t in (true, swapped)]
            cut_out = bool(true.crops)
            same = shown[0].shape == shown[1].shape and shown[0].equal(shown[1])
            assert same is not cut_out  # a picture shown again is no crop, and stays


def test_the_original_brings_its_own_number_of_placeholders(played, policy):
    for trajectory in played["original"]:
        for turn in trajectory.turns:
            assert turn.prompt.ids.count(policy.chat.image_id) == sum(len(i.patches) // 4 for i in turn.prompt.images)


def test_every_question_gets_a_row_with_all_variants(policy):
    samples = [(make_question(IMAGE, f"q{i}"), IMAGE) for i in range(2)]
    rows = counterfactuals(partial(roll_out, policy, Scripted()), TwoTurn(), samples, Sampling(6, 0), ExactAnswer(), 0)
    assert [row["id"] for row in rows] == ["q0", "q1"]
    assert all({CROP, NO_TOOLS, *SWAPS} <= row.keys() for row in rows)


def test_gain_and_harm_are_counted_in_pairs():
    outcomes = [(True, False), (True, False), (False, True), (True, True)]
    rows = [{CROP: a, NO_TOOLS: False, **dict.fromkeys(SWAPS, b)} for a, b in outcomes]
    black = compare(rows)["black"]
    assert (black["gain"], black["harm"]) == (2, 1)
    assert black["drop"] == 0.25
    assert black["drop_interval"][0] < 0.25 < black["drop_interval"][1]


def test_intervals_cover_as_often_as_they_say():
    """Of many samples of 60 differences, about 95 in 100 intervals hold the true mean."""
    rng = np.random.default_rng(0)
    covered = 0
    for _ in range(200):
        low, high = paired_bootstrap(rng.choice([-1, 0, 1], p=[0.1, 0.5, 0.4], size=60), resamples=400)
        covered += low <= 0.3 <= high
    assert 180 <= covered <= 199


def test_an_interval_of_nothing_says_nothing():
    assert wilson(0, 0) == (0, 1)
    assert paired_bootstrap([]) == (-np.inf, np.inf)
