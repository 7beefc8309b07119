"""`python -m mgpo study`: make what is missing, then write the page."""

import ctypes
import json
import os
import platform
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, as_completed
from importlib.metadata import version
from pathlib import Path

from mgpo.callbacks.folder import LOCK
from mgpo.callbacks.report_writer import commit
from mgpo.errors import UserError
from mgpo.tools.study.markdown import write_study
from mgpo.tools.study.parts import Part, check_parts, check_subset, rows_of
from mgpo.tools.study.plan import DONE, Job, Matrix, Run, Value, jobs
from mgpo.tools.study.results import Results
from mgpo.utils.atomic_files import check_output, locked, write_json

PR_SET_PDEATHSIG = 1  # of linux/prctl.h


def study(
    runs: dict[str, Run],
    parts: list[Part],
    seeds: list[int],
    seed_keys: list[str],
    common: dict[str, Value] | None = None,
    by_seed: dict[str, list[Value]] | None = None,
    subset: list[str] | None = None,
    whole: bool = False,
    parallel: int = 1,
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
        by_seed: Keys whose values go with the seeds, the first with the first and so on, as for several base models.
        subset: Rows that are enough for a first look: only these are made, once, unless `whole`; parts that show others
            are left out.
        whole: Make all rows for all seeds.
        parallel: Commands at a time, which share the processor's cores.
        names: What rows are called on the page.
        note: A paragraph at the head of the page.
        output: Folder of the runs.
        page: Folder of the page; by default `page` in `output`. A subset's is the folder `subset` in it.
        dry_run: Print the commands and do nothing.
    """
    if parallel < 1:
        raise UserError(f"--parallel is {parallel}; at least 1 command runs at a time")
    folder = Path(output)
    check_parts(parts, runs)
    if subset and not whole:
        check_subset(subset, runs)
        runs, seeds = {name: runs[name] for name in subset}, seeds[:1]
        parts = [part for part in parts if set(rows_of(part)) <= set(subset)]
    matrix = Matrix(runs, seeds, seed_keys, common or {}, by_seed or {}, folder)
    stages = list(jobs(matrix))
    todo = [job for stage in stages for job in stage]
    if dry_run:
        print(*(f"python -m mgpo {shlex.join(job.arguments)}" for job in todo), sep="\n")
        return
    shown = (Path(page) if page else folder / "page") / ("" if whole or not subset else "subset")
    check_output(shown / "README.md", "name another --page")
    with locked(folder / LOCK, f"the study {folder}", "name another --output"):
        for stage in stages:
            with ThreadPoolExecutor(parallel) as threads:
                made = [threads.submit(make, job, parallel) for job in stage if not job.done]
                try:
                    for one in as_completed(made):
                        one.result()
                except BaseException:
                    threads.shutdown(cancel_futures=True)  # waits for those that run
                    raise
    write_study(shown, Results(folder, seeds), parts, names or {}, [origin(todo, len(seeds)), "", note])
    print(f"study: {shown / 'README.md'}")


def make(job: Job, parallel: int) -> None:
    """Run one command afresh, its output in log.txt. Raises UserError, with the log's last lines, where it fails.

    As one of several at a time it takes its share of the cores.
    """
    print(job.name, flush=True)
    threads = str(max(1, (os.cpu_count() or 1) // parallel))
    with locked(job.folder / LOCK, str(job.folder), "name another --output"):  # it may still be at its last step
        shutil.rmtree(job.folder, ignore_errors=True)  # what an attempt that was broken off has left
    job.folder.mkdir(parents=True)
    began = time.monotonic()
    log = job.folder / "log.txt"
    with log.open("wb") as lines:
        command = [sys.executable, "-m", "mgpo", *job.arguments]
        code = subprocess.run(
            command, stdout=lines, stderr=subprocess.STDOUT, preexec_fn=_end_with(os.getpid()),
            env={"OMP_NUM_THREADS": threads, **os.environ},
        ).returncode  # fmt: skip
    if code or not job.report.is_file():
        tail = " / ".join(log.read_text("utf-8", "replace").splitlines()[-3:])[-600:]
        raise UserError(f"{job.name} failed; see {log} ({tail}); the study goes on from there when started again")
    seconds = round(time.monotonic() - began)
    marker = {"fingerprint": job.fingerprint, "arguments": job.arguments, "commit": commit(), "machine": machine()}
    write_json(job.folder / DONE, {**marker, "seconds": seconds}, "name another --output")
    print(f"{job.name}: {seconds} s", flush=True)


def _end_with(parent: int) -> Callable[[], None]:
    """For the child, before it becomes the command: be told to stop when the parent ends, however it does (Linux)."""
    prctl = getattr(ctypes.CDLL(None), "prctl", None)

    def bind() -> None:
        if prctl is not None:
            prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
            if os.getppid() != parent:
                os._exit(1)

    return bind


def machine() -> str:
    """The processor that runs are made on, its cores, and torch's version: on others the last digits differ."""
    info = Path("/proc/cpuinfo")  # Linux
    lines = info.read_text().splitlines() if info.is_file() else []
    models = [line.split(":")[1].strip() for line in lines if line.startswith("model name")]
    model = models[0] if models else platform.processor() or platform.machine()
    return f"{model}, {os.cpu_count()} cores, torch {version('torch')}"


def origin(made: list[Job], seeds: int) -> str:
    """The command that made the page, and the commits and machines at which its runs were made."""
    markers = [json.loads((job.folder / DONE).read_bytes()) for job in made]
    commits, machines = (
        ", ".join(dict.fromkeys(marker[key] for marker in markers if marker.get(key))) for key in ("commit", "machine")
    )
    command = f"python -m mgpo {shlex.join(sys.argv[1:])}"
    made_by = f"Made by `{command}`, at {commits or 'no commit'} on {machines or 'an unknown machine'}"
    return f"{made_by}; {seeds} {'seed' if seeds == 1 else 'seeds'}, shown as mean (lowest–highest)."
