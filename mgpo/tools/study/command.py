"""`python -m mgpo study`: make what is missing, then write the page."""

import ctypes
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from mgpo.callbacks.folder import LOCK
from mgpo.callbacks.report_writer import commit
from mgpo.errors import UserError
from mgpo.tools.study.markdown import Part, check_parts, write_study
from mgpo.tools.study.plan import DONE, REPORT, Job, Run, Value, jobs
from mgpo.tools.study.results import Results
from mgpo.utils.atomic_files import locked

PR_SET_PDEATHSIG = 1  # of linux/prctl.h


def study(
    runs: dict[str, Run],
    parts: list[Part],
    seeds: list[int],
    seed_keys: list[str],
    common: dict[str, Value] | None = None,
    names: dict[str, str] | None = None,
    note: str = "",
    output: str = "runs/study",
    page: str | None = None,
    dry_run: bool = False,
) -> None:
    """Run a matrix one after another and write one page of tables and curves.

    A command that has ended well is not run again, unless its arguments or its configuration have changed.

    Args:
        runs: The rows of the matrix by name.
        parts: What the page shows, in order: tables, differences, curves, counterfactuals.
        seeds: Every row is made once for each of these.
        seed_keys: Keys of the command line that are set to the seed in training.
        common: Keys that are set for every row.
        names: What rows are called on the page.
        note: A paragraph at the head of the page.
        output: Folder of the runs.
        page: Folder of the page; by default `page` in `output`.
        dry_run: Print the commands and do nothing.
    """
    folder = Path(output)
    todo = list(jobs(runs, seeds, seed_keys, common or {}, folder))
    check_parts(parts, runs)
    if dry_run:
        print(*(" ".join(["python -m mgpo", *job.arguments]) for job in todo), sep="\n")
        return
    with locked(folder / LOCK, f"the study {folder}", "name another --output"):
        for number, job in enumerate(todo, start=1):
            if not job.done:
                print(f"[{number}/{len(todo)}] {job.name}", flush=True)
                make(job)
    shown = Path(page) if page else folder / "page"
    write_study(shown, Results(folder, seeds), parts, names or {}, [origin(todo, len(seeds)), "", note])
    print(f"study: {shown / 'README.md'}")


def make(job: Job) -> None:
    """Run one command afresh, its output in log.txt. Raises UserError, with the log's last lines, where it fails."""
    with locked(job.folder / LOCK, str(job.folder), "name another --output"):  # it may still be at its last step
        shutil.rmtree(job.folder, ignore_errors=True)  # what an attempt that was broken off has left
    job.folder.mkdir(parents=True)
    began = time.monotonic()
    log = job.folder / "log.txt"
    with log.open("w") as lines:
        command = [sys.executable, "-m", "mgpo", *job.arguments]
        code = subprocess.run(
            command, stdout=lines, stderr=subprocess.STDOUT, preexec_fn=_end_with(os.getpid())
        ).returncode
    if code or not (job.folder / REPORT).is_file():
        tail = " / ".join(log.read_text().splitlines()[-3:])[-600:]
        raise UserError(f"{job.name} failed; see {log} ({tail}); the study goes on from there when started again")
    seconds = round(time.monotonic() - began)
    marker = {"fingerprint": job.fingerprint, "arguments": job.arguments, "commit": commit(), "seconds": seconds}
    (job.folder / DONE).write_text(json.dumps(marker, indent=1))
    print(f"    {seconds} s", flush=True)


def _end_with(parent: int) -> Callable[[], None]:
    """For the child, before it becomes the command: be told to stop when the parent ends, however it does (Linux)."""
    prctl = getattr(ctypes.CDLL(None), "prctl", None)

    def bind() -> None:
        if prctl is not None:
            prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
            if os.getppid() != parent:
                os._exit(1)

    return bind


def origin(made: list[Job], seeds: int) -> str:
    """The command that made the page, and the commits at which its runs were made."""
    markers = [json.loads((job.folder / DONE).read_text()) for job in made]
    commits = ", ".join(dict.fromkeys(marker["commit"] for marker in markers if marker["commit"]))
    command = " ".join(["python -m mgpo", *sys.argv[1:]])
    return f"Made by `{command}`, at {commits or 'no commit'}; {seeds} seeds, shown as mean (lowest–highest)."
