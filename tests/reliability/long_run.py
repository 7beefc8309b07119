"""Whether a long run stays as small as it was: memory, file handles, threads, processes, disk.

    python -m tests.reliability.long_run --steps 1000 --first 100

A `fit` with everything that the default configuration watches and writes, but few rollouts a step. Memory is taken
after a collection of garbage and after free pages were handed back, because otherwise it measures what glibc keeps; and
as the median of some samples, because an original more or less that waits for its crops is two per cent.
"""

import argparse
import ctypes
import gc
import json
import os
import sys
import tempfile
from pathlib import Path
from statistics import median
from typing import Any

import lightning as L
import psutil

from mgpo.callbacks.folder import run_folder
from mgpo.cli import main as command
from tests.test_cli import ROOT

MIB = 2**20
ROOM = {"resident": 0.01, "anonymous": 0.01, "with_children": 0.01, "handles": 0, "threads": 0, "processes": 0}
SAMPLES = 10  # in a median
COLUMNS = ("step", "resident", "anonymous", "with_children", "handles", "threads", "processes", "disk")
NAME = "long_run.jsonl"


class Sizes(L.Callback):
    """Appends a line to `long_run.jsonl` in the run's folder every so many steps; sizes are in MiB."""

    def __init__(self, every_n_steps: int = 10) -> None:
        self.every_n_steps = every_n_steps

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        if trainer.global_step % self.every_n_steps == 0:
            folder = run_folder(trainer)
            with (folder / NAME).open("a") as lines:
                lines.write(json.dumps(sizes(trainer.global_step, folder)) + "\n")


def sizes(step: int, folder: Path) -> dict[str, float]:
    """What this process and its children hold; a page that they share counts once."""
    gc.collect()
    if hasattr(libc := ctypes.CDLL(None), "malloc_trim"):
        libc.malloc_trim(0)
    own = psutil.Process()
    tree = [own, *own.children(recursive=True)]
    return {
        "step": step,
        "resident": own.memory_info().rss / MIB,
        "anonymous": anonymous(),
        "with_children": sum(process.memory_full_info().pss for process in tree) / MIB,
        "handles": sum(process.num_fds() for process in tree),
        "threads": sum(process.num_threads() for process in tree),
        "processes": len(tree),
        "disk": sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) / MIB,
    }


def anonymous() -> float:
    """MiB of this process that are neither a file's nor an original's that a worker handed over."""
    fields = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return int(fields["RssAnon"].split()[0]) / 1024


def grown(rows: list[dict[str, float]], first: int) -> list[str]:
    """What is larger in the last samples than in those from step `first` on by more than `ROOM`, a share."""
    kept = [row for row in rows if row["step"] >= first]
    lines = []
    for name, room in ROOM.items():
        start, end = (median(row[name] for row in part) for part in (kept[:SAMPLES], kept[-SAMPLES:]))
        print(f"{name}: {start:.1f} from step {first} on, {end:.1f} at the end, {100 * (end / start - 1):+.2f} %")
        if end > (1 + room) * start:
            lines.append(name)
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--first", type=int, default=100, help="the step from which on nothing may grow")
    parser.add_argument("--every", type=int, default=10, help="steps between two samples")
    parser.add_argument("--folder", type=Path, help="where the run is left; else nowhere")
    parser.add_argument("options", nargs="*", help="of `mgpo fit`, behind --")
    arguments = parser.parse_args()
    sys.path.insert(0, str(ROOT))
    with tempfile.TemporaryDirectory() as temporary:
        os.chdir(arguments.folder or temporary)
        command([
            "fit", f"--config={ROOT}/configs/mgpo.yaml", "--measure=never", f"--trainer.max_steps={arguments.steps}",
            f"--data.train.init_args.count={2 * arguments.steps}", "--data.batch_size=2", "--model.group_size=4",
            "--trainer.callbacks+=tests.reliability.long_run.Sizes",
            f"--trainer.callbacks.every_n_steps={arguments.every}",
            *arguments.options,
        ])  # fmt: skip
        path = max(Path("runs/mgpo").glob(f"*/{NAME}"), key=lambda path: path.stat().st_mtime)
        rows = [json.loads(line) for line in path.read_text().splitlines()]
    print("".join(f"{name:>15}" for name in COLUMNS))
    for row in rows[:: max(1, len(rows) // 20)]:
        print("".join(f"{row[name]:15.1f}" if row[name] % 1 else f"{row[name]:15.0f}" for name in COLUMNS))
    larger = grown(rows, arguments.first)
    print(f"grown: {', '.join(larger)}" if larger else "nothing grew")
    sys.exit(bool(larger))


if __name__ == "__main__":
    main()
