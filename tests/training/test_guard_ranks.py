"""What only one of two ranks finds is left out on both, and both end together."""

import math

import pytest
import torch

from mgpo.distributed import FSDP2Strategy
from mgpo.errors import UserError
from mgpo.training.finite_guard import PATIENCE
from tests.helpers.sharded import fit, make, whole

STRATEGIES = ("fsdp2", "ddp")
BAD = {1: "loss", 3: "gradient", 5: "reward"}  # by number of the update
ALWAYS = 7  # from here on
RANK = 1  # has the bad numbers


def leave_out(rank, folder):
    """A run by strategy in which every second update is bad on one rank, and at last all; what each rank saw of it."""
    for strategy in STRATEGIES:
        torch.save(run(rank, folder, strategy), folder / f"guard-{strategy}-{rank}.pt")


def run(rank, folder, strategy):
    module = make("mgpo")
    weights, said, skipped = [], [], []
    mini_batch, loss, publish = module.mini_batch, module.loss, module.publish

    def counted(groups, *rest):
        number = len(weights)
        module.poison = BAD.get(number, "loss" if number >= ALWAYS else None) if rank == RANK else None
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
    module.publish = lambda: publish() or skipped.append(module.published["skipped_updates"])
    error = None
    try:
        fit(module, folder, 2, steps=99, strategy="ddp" if strategy == "ddp" else FSDP2Strategy())
    except UserError as raised:
        error = str(raised)
    weights.append(whole(module.policy))
    return {"weights": weights, "said": said, "skipped": skipped, "error": error, "steps": module.global_step}


@pytest.fixture(params=STRATEGIES)
def ranks(request, two_ranks):
    return [torch.load(two_ranks / f"guard-{request.param}-{rank}.pt", weights_only=True) for rank in (0, 1)]


def same(first, second):
    return all(torch.equal(value, second[name]) for name, value in first.items())


@pytest.mark.parametrize("number", BAD, ids=BAD.values())
def test_an_update_that_is_bad_on_one_rank_is_left_out_on_both(ranks, number):
    for seen in ranks:
        before, bad, after, then = seen["weights"][number - 1 : number + 3]
        assert not same(before, bad) and same(bad, after) and not same(after, then)
        assert all(value.isfinite().all() for value in then.values())
        assert seen["skipped"][number - 1 : number + 2] == [0, 1, 0]
    one, other = ranks
    assert all(map(same, one["weights"], other["weights"]))
    assert one["said"] == other["said"] and len(one["said"]) == len(BAD) + PATIENCE


def test_the_question_is_named_or_it_is_said_why_not(ranks, request):
    said = [line.partition("update left out, 1 in a row: ")[2] for line in ranks[0]["said"][: len(BAD)]]
    if "fsdp2" in request.node.name:  # a gradient takes all ranks, and no rank can ask for that of one question
        assert said.pop(1).startswith("every question's loss by itself is finite; their gradients, sharded,")
    assert all(line.startswith("question attribute-") for line in said)


def test_five_in_a_row_end_both_ranks(ranks):
    one, other = ranks
    assert one["error"] == other["error"] and f"{PATIENCE} updates in a row" in one["error"]
    for seen in ranks:
        assert seen["steps"] == ALWAYS - len(BAD) and len(seen["weights"]) == ALWAYS + PATIENCE + 1
        assert all(same(seen["weights"][ALWAYS], weights) for weights in seen["weights"][ALWAYS:])
