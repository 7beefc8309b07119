"""One training step at a time in a process of its own: a line on its standard input starts one, a line ends it.

Two trainers can so take turns in one run though they live in two environments. Standard library only.
"""

import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Self

ROOT = Path(__file__).parents[2]


class Turns:
    """The trainer's side: `done` says that a step is over, at first that the trainer stands, and waits for the next."""

    def __init__(self) -> None:
        self.lines = os.fdopen(os.dup(1), "w")
        os.dup2(2, 1)  # whatever else is printed must not stand between the lines

    def done(self, note: str = "") -> None:
        """Raises SystemExit when no more steps are wanted."""
        print(note, file=self.lines, flush=True)
        if not sys.stdin.readline():
            raise SystemExit


class Stepper:
    """The benchmark's side: a trainer as a callable that makes one step."""

    def __init__(self, python: str, module: str, *arguments: str) -> None:
        self.log = tempfile.TemporaryFile("w+")  # noqa: SIM115 - closed with the process
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}
        self.process = subprocess.Popen(
            [python, "-m", module, *arguments], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self.log,
            text=True, cwd=ROOT, env=environment,
        )  # fmt: skip
        self.note = self._read()

    def __call__(self) -> None:
        """One step; `note` is what the trainer says of it."""
        assert self.process.stdin is not None
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        self.note = self._read()

    def _read(self) -> str:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            self.log.seek(0)
            said = self.log.read()[-3000:]
            self.close()
            raise RuntimeError(f"{self.process.args} ended: {said}")
        return line.strip()

    def close(self) -> None:
        """No more steps are wanted."""
        assert self.process.stdin is not None and self.process.stdout is not None
        self.process.stdin.close()
        self.process.wait()
        self.process.stdout.close()
        self.log.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
