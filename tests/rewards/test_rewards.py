import json
from itertools import permutations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mgpo.answers import find_number
from mgpo.images.views import Frame, View
from mgpo.rewards import ExactAnswer, NumericAnswer
from mgpo.rewards.shaping import Format, MatchedPoints, TurnCost, matched_f1, most_pairs
from mgpo.types import Prompt, Reply, Trajectory, Turn
from tests.conftest import make_question, noise_image

IMAGE = noise_image(200, 100)


def played(*texts, right=False):
    trajectory = Trajectory(make_question(IMAGE), IMAGE, right=right, views=[View((0, 0, 200, 100), (100, 50))])
    trajectory.turns = [Turn(Prompt((1,)), Reply((2,), (0.0,), "end"), text) for text in texts]
    return trajectory


@pytest.mark.parametrize(
    ("text", "number"),
    [("1,200", 1200), ("about 12 cars", 12), ("Twelve.", 12), ("-3.5e2", -350), ("2 or 3", None), ("none", None),
     ("one of 2", None), ("1,2", None), ("", None)],
)  # fmt: skip
def test_the_only_number(text, number):
    assert find_number(text) == number


def test_numbers_with_tolerance():
    question = make_question(IMAGE, answer="200")
    assert ExactAnswer()("201", question) == 0
    assert NumericAnswer(relative=0.01)("202", question) == 1
    assert NumericAnswer(relative=0.01)("203", question) == 0
    assert NumericAnswer(absolute=3)("about 203 people", question) == 1
    assert NumericAnswer()(None, question) == 0
    assert NumericAnswer(relative=0.1)("4.8 km", make_question(IMAGE, answer="5 km")) == 1
    assert NumericAnswer(absolute=1)("about 13", make_question(IMAGE, answer="12 cars")) == 1
    assert NumericAnswer(absolute=1)("4.50", make_question(IMAGE, answer="$5")) == 1
    for answer, truth in [("3.6 V", "3.5 V"), ("34 m/s", "35 m/s"), ("60 Hz", "60.0 Hz"), ("12", "12 red cars"),
                          ("12", "about 12"), ("~12", "12 years old"), ("3", "3个"), ("3个", "3个人"), ("20", "20%"),
                          ("3", "3 of them"), ("thirteen", "12 parking spaces")]:  # fmt: skip
        assert NumericAnswer(relative=0.1)(answer, make_question(IMAGE, answer=truth)) == 1, (answer, truth)
    assert NumericAnswer()("two", make_question(IMAGE, answer="2")) == 1
    assert NumericAnswer()("exit", make_question(IMAGE, answer="EXIT")) == 1
    assert NumericAnswer()("B", make_question(IMAGE, answer="B", choices=("1", "2"))) == 1


@pytest.mark.parametrize(
    ("answer", "truth"),
    [("5 m", "5 km"), ("100 mg", "100 kg"), ("3 am", "3 pm"), ("5 June", "5 May"), ("Room 5", "Gate 5"), ("5", "5 km"),
     ("66 dogs", "Route 66"), ("-5", "-5 °C"), ("€5", "$5"), ("5 kg", "$5"), ("30 km", "30°"), ("7", "Seven Samurai"),
     ("1", "One Direction"), ("35 km", "35 m/s")],
)  # fmt: skip
def test_no_number_is_near_to_another_thing(answer, truth):
    assert NumericAnswer(relative=0.5)(answer, make_question(IMAGE, answer=truth)) == 0


def test_format_asks_for_boxes_and_one_boxed_answer():
    box = '[{"bbox_2d": [1, 2, 3, 4]}]'
    reward = Format(0.2)
    assert reward(played(box, r"\boxed{A}")) == 0.2
    assert reward(played(r"\boxed{A}")) == 0.2
    assert reward(played("there", r"\boxed{A}")) == 0
    assert reward(played(box, r"\boxed{A} or \boxed{B}")) == 0
    assert reward(played(box, "A")) == 0
    assert reward(played(box, r"\boxed{\text{B}}")) == 0.2


def test_a_look_costs_right_answers_only():
    reward = TurnCost(0.1)
    assert reward(played("a", "b", "c", right=True)) == pytest.approx(-0.2)
    assert reward(played("a", right=True)) == 0
    assert reward(played("a", "b", "c")) == 0


def test_points_are_matched_one_to_one():
    right = np.array([[0.0, 0.0], [10.0, 0.0]])
    assert matched_f1(right, right, 1) == 1
    assert matched_f1(np.array([[0.0, 0.0], [0.1, 0.0]]), right, 1) == pytest.approx(0.5)  # one point serves once
    assert matched_f1(np.zeros((0, 2)), right, 1) == 0
    assert matched_f1(np.zeros((0, 2)), np.zeros((0, 2)), 1) == 1


def test_a_far_pair_never_displaces_a_near_one():
    """The least total distance would pair both far ones; within the radius there is one match to be had."""
    named, right = np.array([[0.0, 0.0], [6.0, 0.0]]), np.array([[5.0, 0.0], [100.0, 0.0]])
    assert matched_f1(named, right, 2) == pytest.approx(0.5)


@given(st.integers(0, 5), st.integers(0, 5), st.floats(0, 1), st.integers(0, 2**32 - 1))
def test_no_other_way_makes_more_pairs(rows, columns, share, seed):
    allowed = np.random.default_rng(seed).random((rows, columns)) < share
    if rows > columns:
        allowed = allowed.T
    chosen = map(list, permutations(range(allowed.shape[1]), len(allowed)))
    best = max(allowed[range(len(allowed)), each].sum() for each in chosen)
    assert most_pairs(allowed) == most_pairs(allowed.T) == best


def test_pairs_give_way_one_after_the_other():
    """Each row has the first of two columns, until the last row asks for the first column of all."""
    allowed = np.eye(300, dtype=bool) | np.eye(300, k=1, dtype=bool)
    allowed[-1] = np.arange(300) == 0
    assert most_pairs(allowed) == 300


@given(st.lists(st.tuples(st.floats(0, 50), st.floats(0, 50)), min_size=1, max_size=6), st.randoms())
def test_the_order_of_points_does_not_matter(points, random):
    shuffled = random.sample(points, len(points))
    assert matched_f1(np.array(shuffled), np.array(points), 1e-9) == 1


def test_matched_points_warn_and_map_to_the_original(tmp_path):
    path = tmp_path / "points.json"
    path.write_text(json.dumps({"q": [[20, 20], [180, 90]]}))
    with pytest.warns(UserWarning, match="annotated points"):
        reward = MatchedPoints(str(path), weight=0.5)
    assert reward(played('[{"point_2d": [10, 10]}, {"point_2d": [90, 45]}]')) == 0.5
    assert reward(played('[{"point_2d": [10, 10]}]')) == pytest.approx(0.5 * 2 / 3)
    for frame, said in ((Frame.THOUSAND, "[100, 200] [900, 900]"), (Frame.UNIT, "[0.1, 0.2] [0.9, 0.9]")):
        trajectory = played(said)
        trajectory.frame = frame
        assert reward(trajectory) == 0.5
    stranger = played("")
    object.__setattr__(stranger.question, "id", "other")
    with pytest.raises(ValueError, match="no points for question other"):
        reward(stranger)


@pytest.mark.parametrize("text", ["[1, 2]", "{", '{"q": 3}', '{"q": [[1, 2, 3], [4, 5, 6]]}', '{"q": [{"x": 1}]}'])
def test_a_bad_file_of_points_is_one_sentence(tmp_path, text):
    path = tmp_path / "points.json"
    path.write_text(text)
    with pytest.warns(UserWarning, match="annotated"), pytest.raises(ValueError, match=r"points\.json: a JSON object"):
        MatchedPoints(str(path))
