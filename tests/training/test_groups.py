from mgpo.training.groups import DynamicSamplingPool, Groups
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
