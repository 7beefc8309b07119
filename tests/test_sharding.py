"""Weights cut over ranks: the same losses, weights and draws as on one."""

import pytest
import torch

from tests.sharded import LORA, adam, fit, launch, make

ALL = [(kind, lora) for kind in ("sft", "grpo", "mgpo") for lora in (None, LORA)]
QUICK = [("mgpo", None), ("sft", LORA)]


def learn(rank, folder, runs=QUICK):
    for number, (kind, lora) in enumerate(runs):
        found = fit(make(kind, lora), folder, ranks=2)
        if rank == 0:
            torch.save(found, folder / f"{number}.pt")


def learn_all(rank, folder):
    learn(rank, folder, [run for run in ALL if run not in QUICK])


def check_equal(folder, runs):
    for number, (kind, lora) in enumerate(runs):
        published, weights = torch.load(folder / f"{number}.pt", weights_only=True)
        alone, expected = fit(make(kind, lora), folder)
        assert len(published) == len(alone) == 20
        for step, (two, one) in enumerate(zip(published, alone)):
            names = ("loss", "grad_norm", "reward") if kind != "sft" else ("loss", "grad_norm")
            for name in names:
                assert two[name] == pytest.approx(one[name], rel=1e-5, abs=1e-5), (kind, lora, step, name)
        assert weights.keys() == expected.keys()
        for name, value in expected.items():
            torch.testing.assert_close(weights[name], value, rtol=0, atol=1e-5, msg=f"{kind} {lora} {name}")


def test_two_ranks_learn_as_one_does(tmp_path):
    launch(learn, tmp_path)
    check_equal(tmp_path, QUICK)


@pytest.mark.slow
def test_so_do_the_others(tmp_path):
    launch(learn_all, tmp_path)
    check_equal(tmp_path, [run for run in ALL if run not in QUICK])
