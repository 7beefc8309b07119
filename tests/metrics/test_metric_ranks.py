"""Two processes, uneven and partly the same episodes: exactly the values of one process."""

import pickle
import warnings

import torch
from torch import distributed

from mgpo import metrics as m
from tests.metrics.test_metrics import RECORDS, ROWS

RECORD_METRICS = [
    m.Accuracy, m.ValidBoxRatio, m.InvalidReasons, m.SubimageAccuracy, m.SubimageShare, m.ZoomFactor, m.CropAreaShare,
    m.TurnsPerEpisode, m.CropRate, m.FallbackRate, m.RewardMean, m.GroupAgreement, m.GroupSpread,
    m.ConstantRewardGroups, m.VoteCalibration,
]  # fmt: skip
PARTS = {  # what ranks 0 and 1 see; None is a rank whose `update` is never called
    "uneven, with duplicates": ([0, 1, 2, 3, 4], [3, 5, 0]),
    "a group in two places": ([0, 2, 4], [5, 3, 1]),
    "nothing on one": ([], [0, 1, 2, 3, 4, 5]),
    "never called on one": ([5, 4, 3, 2, 1, 0], None),
    "nothing anywhere": ([], None),
}


def make_metrics(by):
    usual = [cls(by=by) for cls in RECORD_METRICS]
    return [*usual, m.PassAtK(2, by=by), m.MajorityAtK(3, by=by), m.CropGain(by=by), m.CropHarm(by=by)]


def values_of(rows, by):
    values = []
    for metric in make_metrics(by):
        data = ROWS if isinstance(metric, m.effects.CropEffect) else RECORDS
        for row in rows or ():  # one at a time: ranks also differ in how often they update
            metric.update(data[row : row + 1])
        if rows == []:
            metric.update([])
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "The ``compute`` method of metric")
            values.append(metric.compute())
        metric.reset()
    return values


def compute_apart(rank, folder):
    """On each of two ranks, before any trainer has made a process group."""
    distributed.init_process_group("gloo", f"file://{folder}/meeting", rank=rank, world_size=2)
    found = {(name, by): values_of(parts[rank], by) for name, parts in PARTS.items() for by in (None, "split")}
    (folder / f"metrics-{rank}.pkl").write_bytes(pickle.dumps(found))
    distributed.destroy_process_group()


def test_two_ranks_equal_one(two_ranks):
    for rank in (0, 1):
        found = pickle.loads((two_ranks / f"metrics-{rank}.pkl").read_bytes())
        for (name, by), values in found.items():
            together = [row for part in PARTS[name] for row in part or ()]
            torch.testing.assert_close(
                values, values_of(together, by), rtol=0, atol=0, equal_nan=True, msg=f"{name}, rank {rank}, by {by}"
            )
