"""Weights cut over ranks: the same losses, weights and draws as on one."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from torch.distributed.fsdp import FSDPModule

from mgpo.distributed import FSDP2Strategy
from mgpo.errors import UserError
from mgpo.policy.hub.run_weights import policy_weights
from tests.helpers.sharded import LORA, fit, launch, make
from tests.test_cli import ROOT

ALL = [(kind, lora) for kind in ("sft", "grpo", "mgpo") for lora in (None, LORA)]
QUICK = [("mgpo", None)]


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
                # Rounding that Adam amplifies is seen in a gradient's norm before it is in anything else.
                near = 1e-4 if name == "grad_norm" else 1e-5  # of a sum that nearly cancels
                assert two[name] == pytest.approx(one[name], rel=near, abs=1e-5), (kind, lora, step, name)
        assert weights.keys() == expected.keys()
        for name, value in expected.items():
            torch.testing.assert_close(weights[name], value, rtol=0, atol=1e-5, msg=f"{kind} {lora} {name}")


def test_two_ranks_learn_as_one_does(two_ranks):
    check_equal(two_ranks, QUICK)


@pytest.mark.slow
def test_so_do_the_others(tmp_path):
    launch(learn_all, tmp_path)
    check_equal(tmp_path, [run for run in ALL if run not in QUICK])


@pytest.mark.slow
def test_a_rank_that_is_killed_costs_nothing_but_time(tmp_path):
    """A run that lost a rank goes on from its last checkpoint to the very end of one that did not."""
    command = [
        sys.executable, "-m", "mgpo", "fit", f"--config={ROOT}/configs/mgpo.yaml", f"--config={ROOT}/configs/fsdp.yaml",
        "--trainer.devices=2", "--measure=never", "--data.train.init_args.count=32", "--data.batch_size=2",
        "--trainer.callbacks=[{class_path: lightning.pytorch.callbacks.ModelCheckpoint, init_args: "
        "{filename: '{step}', every_n_train_steps: 2, save_top_k: -1}}]",
    ]  # fmt: skip
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}

    def checkpoint(version, step):
        return tmp_path / f"runs/mgpo/version_{version}/checkpoints/step={step}.ckpt"

    def start(*more):
        quiet = dict(stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        return subprocess.Popen([*command, *more], cwd=tmp_path, env=environment, **quiet)

    assert start().wait(300) == 0
    broken = start()
    while not checkpoint(1, 4).exists():
        assert broken.poll() is None
        time.sleep(0.1)
    other = Path(f"/proc/{broken.pid}/task/{broken.pid}/children").read_text().split()[0]  # ranks come before workers
    os.kill(int(other), signal.SIGKILL)
    assert broken.wait(60) != 0
    assert not checkpoint(1, 8).exists()
    last = max(checkpoint(1, 4).parent.glob("step=*.ckpt"))
    assert start(f"--ckpt_path={last}").wait(300) == 0
    found, expected = (policy_weights(str(checkpoint(version, 8))) for version in (2, 0))
    assert all(torch.equal(found[name], value) for name, value in expected.items())


def test_a_torch_that_is_too_old_is_told(monkeypatch):
    monkeypatch.delattr(FSDPModule, "reset_iter_state")
    with pytest.raises(UserError, match=r"sharded training takes torch 2\.13"):
        FSDP2Strategy().setup_environment()
