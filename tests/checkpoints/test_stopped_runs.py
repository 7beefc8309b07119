"""A run that is killed, stopped or out of disk goes on by the same command."""

import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from mgpo.callbacks.stop import StopOnSignal
from tests.helpers.remains import differences
from tests.reliability.kills import SMALL

ROOT = Path(__file__).parents[2]


def test_a_signal_outside_of_training_stops_at_once():
    with pytest.raises(SystemExit) as stopped:
        StopOnSignal().hear(signal.SIGTERM, None)
    assert stopped.value.code == 143


def start(folder, *more, limit=None):
    """A small run in a process group of its own."""
    (folder / "small.yaml").write_text(yaml.safe_dump(SMALL))
    command = [sys.executable, "-m", "mgpo", "fit", f"--config={ROOT}/configs/mgpo.yaml", "--config=small.yaml"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    capped = (lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))) if limit else None
    options = dict(cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    options |= dict(start_new_session=True, preexec_fn=capped)
    return subprocess.Popen([*command, "--measure=never", "--preflight=off", "--ckpt_path=last", *more], **options)


def finish(process, code=0):
    output, errors = process.communicate(timeout=200)
    assert process.returncode == code, errors[-3000:]
    return output + errors


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    folder = tmp_path_factory.mktemp("alone")
    assert "starting at the beginning" in finish(start(folder))
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_stopped_run_ends_like_one_that_was_not(tmp_path, alone, number):
    """The whole process group gets the signal, as from a terminal or a scheduler: decoding workers too."""
    process = start(tmp_path)
    while not list(tmp_path.glob("runs/mgpo/version_0/checkpoints/last.ckpt")):
        assert process.poll() is None
        time.sleep(0.01)
    os.killpg(process.pid, number)
    assert "--ckpt_path last" in finish(process, 128 + number)
    assert "going on from" in finish(start(tmp_path))
    assert differences(tmp_path, alone) == []
    assert "Traceback" not in finish(start(tmp_path))  # there is nothing left to do
    assert differences(tmp_path, alone) == []


@pytest.mark.slow
def test_two_ranks_stop_at_the_same_step(tmp_path):
    """Rank 0 alone is told."""
    ranks = ["--trainer.devices=2", "--trainer.strategy=ddp"]
    process = start(tmp_path, *ranks)
    while not list(tmp_path.glob("runs/mgpo/version_0/checkpoints/last.ckpt")):
        assert process.poll() is None
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGTERM)
    finish(process, 143)
    assert "going on from" in finish(start(tmp_path, *ranks))
    (tmp_path / "whole").mkdir()
    finish(start(tmp_path / "whole", *ranks))
    assert differences(tmp_path, tmp_path / "whole") == []


@pytest.mark.slow
def test_a_full_disk_is_one_sentence_and_costs_no_run(tmp_path, alone):
    """A limit on the size of files, under the size of a checkpoint, after some were saved."""
    process = start(tmp_path)
    while not list(tmp_path.glob("runs/mgpo/version_0/checkpoints/last.ckpt")):
        assert process.poll() is None
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    said = finish(start(tmp_path, limit=2_000_000), 1)
    assert "last.ckpt can't be written: it would be larger than files may be here" in said
    assert "Traceback" not in said
    finish(start(tmp_path))
    assert differences(tmp_path, alone) == []


@pytest.mark.slow
def test_killed_runs_end_like_one_that_was_not():
    """`python -m tests.reliability.kills` does the same more often, and with two ranks."""
    command = [sys.executable, "-m", "tests.reliability.kills", "--kills=4", "--modes", "batches"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stdout + done.stderr
