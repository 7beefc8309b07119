"""What only one of two ranks finds is left out on both, and both end together."""

import math

import pytest
import torch

from mgpo.distributed import FSDP2Strategy
from mgpo.errors import UserError
from mgpo.training.finite_guard import PATIENCE
from tests.helpers.sharded import fit, make, whole

STRATEGIES = ("fsdp2", "ddp")
KINDS = ("loss", "gradient", "reward")
RANK = 1  # has the bad numbers


def leave_out(rank, folder):
    """Runs whose second update is bad on one rank, and one in which all are; what each rank saw of them."""
    for strategy in STRATEGIES:
        seen = {kind: run(rank, folder, strategy, kind, {1}, steps=3) for kind in KINDS}
        seen["always"] = run(rank, folder, strategy, "loss", range(1, 99), steps=9)
        torch.save(seen, folder / f"guard-{strategy}-{rank}.pt")


def run(rank, folder, strategy, kind, bad, steps):
    module = make("mgpo")
    weights, said = [], []
    mini_batch, loss = module.mini_batch, module.loss

    def counted(groups, *rest):
        number = len(weights)
        module.poison = kind if rank == RANK and number in bad else None
        if module.poison == "reward":
            groups.trajectories[0].reward = math.nan
        weights.append(whole(module.policy))
        return mini_batch(groups, *rest)

    def poisoned(*args):
        value, metrics = loss(*args)
        if module.poison == "loss":
            value = value + math.inf  # whose gradient is that of the others
        if module.poison == "gradient":
            value = value + 0 * (value - value.detach()).sqrt()  # 0 times an infinite slope
        return value, metrics

    module.mini_batch, module.loss, module.print = counted, poisoned, said.append
    published, error = [], None
    try:
        published, _ = fit(module, folder, 2, steps, strategy="ddp" if strategy == "ddp" else FSDP2Strategy())
    except UserError as raised:
        error = str(raised)
    weights.append(whole(module.policy))
    skipped = [step["skipped_updates"] for step in published]
    return {"weights": weights, "skipped": skipped, "said": said, "error": error, "steps": module.global_step}


@pytest.fixture(params=STRATEGIES)
def ranks(request, two_ranks):
    return [torch.load(two_ranks / f"guard-{request.param}-{rank}.pt", weights_only=True) for rank in (0, 1)]


def same(first, second):
    return all(torch.equal(value, second[name]) for name, value in first.items())


@pytest.mark.parametrize("kind", KINDS)
def test_an_update_that_is_bad_on_one_rank_is_left_out_on_both(ranks, kind):
    for seen in (rank[kind] for rank in ranks):
        assert seen["error"] is None and seen["steps"] == 3
        assert seen["skipped"] == [0, 1, 0, 0]
        before, bad, after, *_ = seen["weights"]
        assert not same(before, bad) and same(bad, after) and not same(after, seen["weights"][-1])
        assert all(value.isfinite().all() for value in seen["weights"][-1].values())
        assert len(seen["said"]) == 1
    one, other = (rank[kind] for rank in ranks)
    assert all(map(same, one["weights"], other["weights"]))
    assert one["said"] == other["said"] and "question" in one["said"][0]


def test_five_in_a_row_end_both_ranks(ranks):
    one, other = (rank["always"] for rank in ranks)
    assert one["error"] == other["error"] and f"{PATIENCE} updates in a row" in one["error"]
    for seen in (one, other):
        assert seen["steps"] == 1 and len(seen["weights"]) == 1 + PATIENCE + 1
        assert all(same(seen["weights"][1], weights) for weights in seen["weights"][1:])
