"""Runs on several nodes, for which processes here stand, and runs that SLURM interrupts."""

import csv
import os
import signal
import socket
import subprocess
import sys
import time
from contextlib import contextmanager, suppress
from pathlib import Path

import lightning as L
import pytest
import torch

from mgpo.callbacks import Requeue
from mgpo.callbacks.requeue import requeue
from mgpo.policy.hub.run_weights import policy_weights
from mgpo.vllm.wire import receive, send
from tests.helpers.sharded import fit, make
from tests.test_cli import ROOT

JOB, STEPS = "4711", 4
RUN = [
    f"--config={ROOT}/configs/mgpo.yaml", "--measure=never", "--data.train.init_args.count=24", "--data.batch_size=2",
    "--data.val=[]", "--trainer.log_every_n_steps=1",
    "--trainer.callbacks=[{class_path: lightning.pytorch.callbacks.ModelCheckpoint, init_args: {filename: '{step}', "
    "every_n_train_steps: 2, save_top_k: -1}}]",
]  # fmt: skip
WAYS = {"ddp": "--trainer.strategy=ddp", "fsdp": f"--config={ROOT}/configs/fsdp.yaml"}
SRUN = """#!/bin/bash
# Stands for srun: each task in a session of its own, as on a node of its own.
while [[ $1 == --* ]]; do shift; done
for ((i = 0; i < SLURM_NTASKS; i++)); do
  SLURM_PROCID=$i SLURM_NODEID=$i SLURM_LOCALID=0 setsid "$@" &
  tasks+=($!)
done
echo "${tasks[@]}" > tasks
for task in "${tasks[@]}"; do wait "$task" || code=$?; done
exit "${code:-0}"
"""
PYTHON = f'#!/bin/bash\nexec {sys.executable} "$@"\n'
SCONTROL = '#!/bin/bash\necho "$@" >> {folder}/requeued\n'


class Interrupt(L.Callback):
    """The signal finds a process in the middle of its second step."""

    def on_train_batch_start(self, trainer, module, batch, batch_idx):
        if trainer.global_step == 1:
            os.kill(os.getpid(), signal.SIGUSR1)


@contextmanager
def programs(folder, **more):
    """SLURM's, as far as they are needed, before all others; without the variables by which Lightning knows SLURM."""
    there = folder / "bin"
    there.mkdir(parents=True)
    for name, text in {"scontrol": SCONTROL.format(folder=folder), **more}.items():
        (there / name).write_text(text)
        (there / name).chmod(0o755)
    before, handler = dict(os.environ), signal.getsignal(signal.SIGUSR1)
    os.environ.update(PATH=f"{there}:{os.environ['PATH']}", SLURM_JOB_ID=JOB)
    try:
        yield
    finally:
        signal.signal(signal.SIGUSR1, handler)
        os.environ.clear()
        os.environ.update(before)


def leave_and_go_on(folder, ranks, told):
    """What is published at each step, before and after, and the weights in the end."""
    module, published = make("mgpo"), []
    publish = module.publish
    module.publish = lambda: publish() or published.append(module.published)
    with suppress(SystemExit):
        fit(module, folder, ranks, STEPS, callbacks=[*([Interrupt()] if told else []), Requeue()])
    (last,) = folder.glob("runs/unlogged/version_*/checkpoints/last.ckpt")
    rest, weights = fit(make("mgpo"), folder, ranks, STEPS, ckpt_path=str(last))
    return published, rest, weights


def interrupt_one(rank, folder):
    """Only the second rank hears of it."""
    with programs(folder / f"rank-{rank}"):
        found = leave_and_go_on(folder / "interrupted", ranks=2, told=rank == 1)
    torch.save(found, folder / f"interrupted-{rank}.pt")


def test_the_step_ends_before_the_job_goes_back_into_the_queue(tmp_path):
    with programs(tmp_path):
        before, after, weights = leave_and_go_on(tmp_path, ranks=1, told=True)
    assert (tmp_path / "requeued").read_text() == f"requeue {JOB}\n"
    published, expected = fit(make("mgpo"), tmp_path, steps=STEPS)
    assert len(before) == 2 and before + after == published
    assert all(torch.equal(weights[name], value) for name, value in expected.items())


def test_shards_are_left_by_all_ranks_at_one_step(two_ranks):
    expected = torch.load(two_ranks / "uninterrupted.pt", weights_only=True)
    for rank in range(2):
        before, after, weights = torch.load(two_ranks / f"interrupted-{rank}.pt", weights_only=True)
        assert (len(before), len(after)) == (2, 2)
        assert all(torch.equal(weights[name], value) for name, value in expected.items())
    assert (two_ranks / "rank-0" / "requeued").read_text() == f"requeue {JOB}\n"
    assert not (two_ranks / "rank-1" / "requeued").exists()


def test_a_task_of_an_array_is_requeued_alone(tmp_path, monkeypatch):
    with programs(tmp_path):
        monkeypatch.setenv("SLURM_ARRAY_JOB_ID", "4700")
        monkeypatch.setenv("SLURM_ARRAY_TASK_ID", "3")
        requeue(Path("last.ckpt"))
    assert (tmp_path / "requeued").read_text() == "requeue 4700_3\n"


def test_without_scontrol_it_is_said_how_to_go_on(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("SLURM_JOB_ID", JOB)
    requeue(Path("last.ckpt"))
    assert "a new job goes on with --ckpt_path last.ckpt" in capsys.readouterr().out


def test_an_engine_s_process_outlives_the_signal():
    ours, theirs = socket.socketpair()
    command = [sys.executable, "-m", "mgpo.vllm.server", str(theirs.fileno())]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with ours, theirs, subprocess.Popen(command, env=environment, pass_fds=[theirs.fileno()]) as server:
        theirs.close()
        for _ in range(2):
            send(ours, {"do": "nothing"})
            assert receive(ours)[0] == {}
            server.send_signal(signal.SIGUSR1)
        ours.close()
        assert server.wait(20) == 0


def start(folder, *command, **variables):
    """A process whose output goes to `log`."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", **variables}
    with (folder / "log").open("a") as log:
        return subprocess.Popen(command, cwd=folder, env=environment, stdout=log, stderr=log)


def finish(folder, *started):
    try:
        codes = [process.wait(200) for process in started]
    finally:
        for process in started:
            process.terminate()  # torchrun then ends what it started
    assert not any(codes), (folder / "log").read_text()[-3000:]


def submit(folder, way, job=JOB):
    """Run the shipped script as SLURM would on two nodes of one GPU each, for which CPUs stand."""
    variables = dict(
        SLURM_JOB_ID=job, SLURM_JOB_NAME="mgpo", SLURM_NNODES="2", SLURM_NTASKS="2", SLURM_NTASKS_PER_NODE="1",
        SLURM_NODELIST="localhost", MASTER_PORT=free_port(),
    )  # fmt: skip
    return start(folder, "bash", f"{ROOT}/configs/launch/slurm.sbatch", *RUN, WAYS[way], **variables)


def free_port():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return str(free.getsockname()[1])


def outcome(run):
    """The weights in the end, and the losses by step."""
    with (run / "metrics.csv").open() as file:
        losses = {row["step"]: row["train/loss"] for row in csv.DictReader(file)}
    return policy_weights(str(run / "checkpoints/step=6.ckpt")), losses


def equal(found, expected):
    return found.keys() == expected.keys() and all(torch.equal(found[name], value) for name, value in expected.items())


@pytest.mark.slow
@pytest.mark.parametrize("way", WAYS)
def test_an_interrupted_job_ends_like_one_that_was_let_be(tmp_path, way):
    """By the script; as under srun every process of a task gets the signal, the one that opens pictures too."""
    run = tmp_path / f"runs/mgpo/version_{JOB}"
    with programs(tmp_path, srun=SRUN, python=PYTHON):
        finish(tmp_path, submit(tmp_path, way, "4700"))
        job = submit(tmp_path, way)
        while not (run / "checkpoints/step=2.ckpt").exists():
            assert job.poll() is None, (tmp_path / "log").read_text()[-3000:]
            time.sleep(0.1)
        for task in (tmp_path / "tasks").read_text().split():
            os.killpg(int(task), signal.SIGUSR1)
        finish(tmp_path, job)
        assert (tmp_path / "requeued").read_text() == f"requeue {JOB}\n"
        assert not (run / "checkpoints/step=6.ckpt").exists()
        finish(tmp_path, submit(tmp_path, way))
    (weights, losses), (expected, known) = outcome(run), outcome(tmp_path / "runs/mgpo/version_4700")
    assert equal(weights, expected)
    assert losses == known
    assert len(list((tmp_path / "runs/mgpo").iterdir())) == 2


@pytest.mark.slow
def test_one_node_and_torchrun_train_as_slurm_does(tmp_path):
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--nnodes=2", "--nproc_per_node=1"]
    torchrun += ["--rdzv_backend=c10d", "--rdzv_id=1", f"--rdzv_endpoint=localhost:{free_port()}"]
    fit_ = ["-m", "mgpo", "fit", *RUN, WAYS["ddp"]]
    with programs(tmp_path, srun=SRUN, python=PYTHON):
        finish(tmp_path, submit(tmp_path, "ddp"))
    finish(tmp_path, start(tmp_path, sys.executable, *fit_, "--trainer.devices=2"))
    nodes = [*torchrun, *fit_, "--trainer.num_nodes=2", "--trainer.devices=1"]
    finish(tmp_path, *(start(tmp_path, *nodes) for _ in range(2)))
    runs = [outcome(tmp_path / "runs/mgpo" / name) for name in (f"version_{JOB}", "version_4712", "version_4713")]
    for weights, losses in runs[1:]:
        assert equal(weights, runs[0][0]) and losses == runs[0][1]
