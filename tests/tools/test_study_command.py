"""The command itself: stages, failures, subsets, resumption, and that nothing outlives it."""

import json
import multiprocessing
import os
import shlex
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import yaml

from mgpo.errors import UserError
from mgpo.tools.study import command
from mgpo.tools.study.command import _end_with
from mgpo.tools.study.parts import Table
from mgpo.tools.study.plan import Job, Run
from tests.test_cli import ROOT, run
from tests.tools.test_study import RUNS

TINY = {
    "data.train.init_args.count": 4, "data.batch_size": 2, "data.num_workers": 0,
    "data.val": '[{"class_path": "mgpo.data.Scenes", "init_args": {"count": 2, "side": 512, "split": "val"}}]',
    "trainer.log_every_n_steps": 1,
}  # fmt: skip


@pytest.mark.slow
def test_a_study_resumes_where_it_stopped(tmp_path):
    """A real matrix in real processes: a row that fails stops it in one sentence; what is done is not done again."""
    runs = {
        "base": {"config": str(ROOT / "configs/mgpo.yaml"), "untrained": True},
        "mgpo": {"config": str(ROOT / "configs/mgpo.yaml")},
        "free": {"config": str(ROOT / "configs/free.yaml"), "set": {"model.group_size": 1}},
        "three": {"of": "mgpo", "set": {"model.dialogue.init_args.turns": 3, "counterfactuals.enabled": True}},
        "asked": {"audits": "mgpo", "set": {"limit": 2}},
    }
    study = {
        "runs": runs, "seeds": [0], "seed_keys": ["model.seed"], "common": TINY, "output": "out",
        "parts": [
            {"title": "Main", "rows": ["base", "mgpo", "three"], "shares": ["accuracy"]},
            {"title": "Boxes", "metric": "train/valid_box_ratio", "rows": ["mgpo"]},
            {"title": "Crop", "swapped": ["three"]},
            {"title": "Why", "audited": ["asked"], "rates": ["mark_outside"]},
        ],
    }  # fmt: skip
    path = tmp_path / "study.yaml"
    path.write_text(yaml.safe_dump(study, sort_keys=False))
    broken = run("study", "--config", str(path), cwd=tmp_path, check=False)
    assert broken.returncode != 0
    assert "free, seed 0 failed" in broken.stderr and "at least 2 rollouts" in broken.stderr
    report = tmp_path / "out/mgpo/seed-0/report.json"
    before = report.stat().st_mtime_ns
    del runs["free"]
    path.write_text(yaml.safe_dump(study, sort_keys=False))
    run("study", "--config", str(path), cwd=tmp_path)
    assert report.stat().st_mtime_ns == before
    page = (tmp_path / "out/page/README.md").read_text()
    assert "| three | val | " in page and "black" in page and "| asked | val | " in page
    assert (tmp_path / "out/page/boxes.svg").is_file()


def test_commands_of_a_stage_are_made_together_before_those_that_need_them(tmp_path, monkeypatch):
    together, made = threading.Barrier(2, timeout=30), []

    def make(job, parallel):
        if job.arguments[0] == "fit":
            together.wait()  # breaks where they are made one after another
        made.append(job.arguments[0])
        job.folder.mkdir(parents=True)
        (job.folder / "done.json").write_text(json.dumps({"fingerprint": job.fingerprint, "commit": "c"}))

    monkeypatch.setattr(command, "make", make)
    runs = {"later": Run(of="a"), "a": Run("a.yaml"), "b": Run("b.yaml")}
    command.study(runs, [], [0], [], output=str(tmp_path / "runs"), parallel=2)
    assert made == ["fit", "fit", "validate"]
    assert "1 seed" in (tmp_path / "runs/page/README.md").read_text()


def test_a_command_that_fails_ends_the_study_before_what_comes_later(tmp_path, monkeypatch):
    def make(job, parallel):
        made.append(job.name)
        raise UserError(f"{job.name} failed")

    made = []
    monkeypatch.setattr(command, "make", make)
    with pytest.raises(UserError, match="a, seed 0 failed"):
        command.study({"a": Run("a.yaml"), "later": Run(of="a")}, [], [0], [], output=str(tmp_path))
    assert made == ["a, seed 0"]


def test_a_command_whose_end_was_noted_only_by_half_is_not_done(tmp_path, monkeypatch):
    job = Job("a, seed 0", tmp_path / "a", ["fit"], "its own")

    def ended(*args, **options):
        job.report.touch()
        return subprocess.CompletedProcess(args, 0, "")

    def killed(*args):
        raise KeyboardInterrupt

    monkeypatch.setattr(subprocess, "run", ended)
    replace = os.replace
    monkeypatch.setattr(os, "replace", killed)
    with pytest.raises(KeyboardInterrupt):
        command.make(job, 1)
    assert not (job.folder / "done.json").exists() and not job.done
    monkeypatch.setattr(os, "replace", replace)
    command.make(job, 1)
    assert job.done
    whole = (job.folder / "done.json").read_text()
    for damaged in (whole[: len(whole) // 2], "", "[]", "1"):
        (job.folder / "done.json").write_text(damaged)
        assert not job.done


def test_a_subset_is_made_once_and_has_a_page_of_its_own(tmp_path, monkeypatch):
    monkeypatch.setattr(command, "make", lambda job, parallel: made.append(job.name) or job.folder.mkdir(parents=True)
                        or (job.folder / "done.json").write_text("{}"))  # fmt: skip
    made = []
    command.study(RUNS, [Table("T", ["three"], ["accuracy"])], [3, 4], [], output=str(tmp_path), subset=["ours"])
    assert made == ["ours, seed 3"] and (tmp_path / "page/subset/README.md").is_file()
    with pytest.raises(UserError, match="subset: there is no run 'our'"):
        command.study(RUNS, [], [0], [], output=str(tmp_path), subset=["our"])


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"parallel": 0}, "--parallel is 0; at least 1"),
        ({"page": "file/page"}, r"README.md can't be written: a part of the path is a file; name another --page"),
    ],
)
def test_mistakes_are_told_before_anything_is_made(tmp_path, monkeypatch, changes, said):
    monkeypatch.chdir(tmp_path)
    Path("file").touch()
    with pytest.raises(UserError, match=said):
        command.study({"a": Run("mgpo")}, [], [0], [], **changes)


def test_printed_commands_can_be_pasted(capsys):
    sources = '[{"class_path": "mgpo.data.Scenes"}]'
    command.study({"a": Run("mgpo", set={"data.val": sources})}, [], [0], [], dry_run=True)
    assert f"--data.val={sources}" in shlex.split(capsys.readouterr().out)


def start_child(pids):
    """A command as a study starts it, whose study is then killed."""
    child = subprocess.Popen(["sleep", "100"], preexec_fn=_end_with(os.getpid()))
    pids.send(child.pid)
    os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a child that its parent has ended")
def test_a_command_ends_with_its_study():
    fork = multiprocessing.get_context("fork")
    here, there = fork.Pipe()
    study = fork.Process(target=start_child, args=(there,))
    study.start()
    stat = Path(f"/proc/{here.recv()}/stat")
    study.join()
    for _ in range(1000):
        if not stat.exists() or " Z " in stat.read_text():  # whoever inherits it may be slow to bury it
            return
        time.sleep(0.01)
    raise AssertionError("it goes on")
