"""`python -m mgpo study`: make what is missing, then write the page."""

import subprocess
import sys
import time
from pathlib import Path

from mgpo.errors import UserError
from mgpo.study.page import Part, write_study
from mgpo.study.plan import Job, Run, Value, jobs
from mgpo.study.results import Results


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
    """Run a matrix one after another and write one page of tables and curves. What is already there is not made again.

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
    for number, job in enumerate(todo, start=1):
        if dry_run:
            print("python -m mgpo", *job.arguments)
        elif not job.done:
            print(f"[{number}/{len(todo)}] {job.name}", flush=True)
            make(job)
    if dry_run:
        return
    shown = Path(page) if page else folder / "page"
    write_study(shown, Results(folder), parts, names or {}, [_origin(len(seeds)), "", note])
    print(f"study: {shown / 'README.md'}")


def make(job: Job) -> None:
    """Run one command, its output in log.txt. Raises UserError, with the log's last lines, where it fails."""
    job.folder.mkdir(parents=True, exist_ok=True)
    for stale in job.folder.glob("metrics.csv"):
        stale.unlink()  # of an attempt that was broken off; it starts again
    began = time.monotonic()
    log = job.folder / "log.txt"
    with log.open("w") as lines:
        command = [sys.executable, "-m", "mgpo", *job.arguments]
        code = subprocess.run(command, stdout=lines, stderr=subprocess.STDOUT).returncode
    if code or not job.done:
        tail = " / ".join(log.read_text().splitlines()[-3:])[-600:]
        raise UserError(f"{job.name} failed; see {log} ({tail}); the study goes on from there when started again")
    print(f"    {time.monotonic() - began:.0f} s", flush=True)


def _origin(seeds: int) -> str:
    """The command and the commit that made the page."""
    command = " ".join(["python -m mgpo", *sys.argv[1:]])
    found = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True)
    commit = f", at commit {found.stdout.strip()}" if found.returncode == 0 else ""
    return f"Made by `{command}`{commit}; {seeds} seeds, shown as mean (lowest–highest)."
