import torch

from mgpo.training.groups import DynamicSamplingPool, Groups, MiniBatch, mini_batches
from mgpo.types import Trajectory
from tests.conftest import make_question, noise_image

IMAGE = noise_image(56, 56)


def groups(*rewards, unfinished=()):
    rows = [float(reward) for group in rewards for reward in group]
    made = [
        Trajectory(make_question(IMAGE, str(i)), IMAGE, reward=r, limited=i in unfinished) for i, r in enumerate(rows)
    ]
    return Groups.of(made, len(rewards[0]), mask_unfinished=bool(unfinished))


def test_silent_groups_count_only_where_they_are_kept():
    some = groups([1, 0], [1, 1], [0, 0])
    assert some.counted_N(constant=True).all()
    assert some.counted_N(constant=False).tolist() == [True, True, False, False, False, False]


def test_masked_rollouts_take_no_part_in_the_signal():
    some = groups([1, 1, 0], [1, 0, 0], unfinished={2})
    assert some.signal_B.tolist() == [False, True]
    assert some.counted_N(constant=True).tolist() == [True, True, False, True, True, True]


def test_of_a_group_those_count_that_were_played_to_the_end():
    some = groups([1, 0], [1, 1])
    some.trajectories[1].failed = "its file is gone"
    assert some.played == [some.trajectories[:1], some.trajectories[2:]]


def test_nothing_may_wait_as_when_a_sampler_runs_ahead():
    pool = DynamicSamplingPool(batches=3)
    assert not pool.add(Groups.of([], 2), wanted=1)
    assert pool.add(groups([1, 0]), wanted=1) and len(pool.take(1).trajectories) == 2


def test_the_pool_waits_until_the_batch_is_full():
    pool = DynamicSamplingPool(batches=4)
    assert not pool.add(groups([1, 0], [0, 0]), wanted=2)
    assert pool.add(groups([1, 1], [0, 1]), wanted=2)
    taken = pool.take(2)
    assert taken.rewards_BG.tolist() == [[1, 0], [0, 1]]
    assert [t.reward for t in taken.trajectories] == [1, 0, 0, 1]
    assert pool.waiting == []


def test_the_pool_gives_up_after_so_many_batches_and_fills_with_silent_groups():
    pool = DynamicSamplingPool(batches=2)
    assert not pool.add(groups([0, 0], [0, 0]), wanted=2)
    assert pool.add(groups([1, 1], [0, 1]), wanted=2)
    assert pool.take(2).rewards_BG.tolist() == [[0, 1], [0, 0]]


def test_a_pool_of_one_batch_takes_it_as_it_is():
    pool = DynamicSamplingPool(batches=1)
    assert pool.add(groups([0, 0], [0, 0]), wanted=2)
    assert len(pool.take(2).trajectories) == 4


def test_there_are_no_more_mini_batches_than_groups_and_each_epoch_deals_them_anew():
    some = groups(*[[1, 0]] * 6)
    assert [len(rows) for rows in mini_batches(some, 8, key=(0, 0, 0))] == [2] * 6
    assert mini_batches(some, 1, key=(0, 0, 0)) == [list(range(12))]
    first, second, later = (mini_batches(some, 3, key) for key in ((0, 0, 0), (0, 0, 1), (0, 1, 0)))
    assert first != second != later and first == mini_batches(some, 3, key=(0, 0, 0))
    for parts in (first, second, later):
        assert sorted(row for rows in parts for row in rows) == list(range(12))
        assert all(a + 1 == b for rows in parts for a, b in zip(rows[::2], rows[1::2]))  # groups are whole


def test_only_what_weighs_and_has_an_advantage_moves_the_policy():
    some = groups([1, 0, 0, 0])
    advantages = [torch.tensor(values) for values in ([0.0, 1.0], [0.0, 0.0], [1.0, 1.0], [0.0, -1.0])]
    batch = MiniBatch(some.trajectories, advantages, torch.tensor([0.5, 0.5, 0.0, 0.5]))
    assert batch.moved_N.tolist() == [True, False, False, True]
