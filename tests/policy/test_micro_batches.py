"""Micro-batches by tokens: nothing lost, nothing over the budget, groups together, equally many on every rank."""

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from mgpo.policy.passes.micro_batches import deal, micro_batches
from mgpo.types import Prompt, Reply, Trajectory, Turn
from tests.conftest import make_question, noise_image

IMAGE = noise_image(8, 8)


def group(prompt: int, replies: list[int]) -> list[Trajectory]:
    shown, question = Prompt(tuple(range(prompt))), make_question(IMAGE)
    said = [Reply(tuple(range(n)), (0.0,) * n, "end") for n in replies]
    return [Trajectory(question, IMAGE, [Turn(shown, reply, "")]) for reply in said]


def cost(rows: list[int], trajectories: list[Trajectory]) -> int:
    prompts = {id(trajectories[i].turns[0].prompt): trajectories[i].turns[0].prompt for i in rows}
    return sum(len(p.ids) for p in prompts.values()) + sum(len(trajectories[i].turns[0].reply.ids) for i in rows)


groups = st.lists(st.tuples(st.integers(1, 60), st.lists(st.integers(1, 90), min_size=1, max_size=9)), max_size=6)


@given(groups, st.integers(1, 400), st.integers(0, 9))
def test_every_row_is_passed_once_within_the_budget_and_longest_first(sizes, budget, more):
    trajectories = [t for prompt, replies in sizes for t in group(prompt, replies)]
    passes = micro_batches(trajectories, budget)
    assert sorted(i for rows in passes for i in rows) == list(range(len(trajectories)))
    assert all(len(rows) == 1 or cost(rows, trajectories) <= budget for rows in passes)
    costs = [cost(rows, trajectories) for rows in passes]
    assert all(a >= b for a, b in pairwise(costs)) or any(len(rows) == 1 for rows in passes)
    agreed = micro_batches(trajectories, budget, lambda n: min(n + more, len(trajectories)))
    assert len(agreed) == min(len(passes) + more, len(trajectories))
    assert sorted(i for rows in agreed for i in rows) == list(range(len(trajectories)))


def test_a_group_that_fits_is_not_split():
    trajectories = [t for _ in range(4) for t in group(100, [10] * 8)]
    assert [len(rows) for rows in micro_batches(trajectories, 400)] == [16, 16]
    assert [len(rows) for rows in micro_batches(trajectories, 359)] == [8, 8, 8, 8]


def test_a_group_that_does_not_fit_is_split_evenly():
    trajectories = group(100, [10, 30, 20, 40])
    assert micro_batches(trajectories, 160) == [[0, 3], [1, 2]]


@given(st.lists(st.integers(1, 100), min_size=1, max_size=40), st.integers(1, 8))
def test_no_hand_is_fuller_than_the_emptiest_by_more_than_one_item(sizes, hands):
    full = [sum(sizes[i] for i in hand) for hand in deal(sizes, hands)]
    assert sum(full) == sum(sizes) and max(full) - min(full) <= max(sizes)
