"""What ranks tell each other besides gradients: which of them failed, and for whom the others wait."""

import json
import os
import re
import signal
import sys
import sysconfig
import threading
import time
import traceback
from collections.abc import Sequence
from dataclasses import dataclass
from types import FrameType
from typing import Any

import lightning as L
import torch.distributed as dist
from torch.distributed.distributed_c10d import _get_default_store

from mgpo.errors import find_user_error
from mgpo.utils.atomic_files import refused

FAILED, AT = "mgpo/failed", "mgpo/at/"
PAUSE = 1.0  # seconds between two looks
PATIENCE = 300.0  # seconds that ranks wait before it is said; twice as many before it is said again
LINGER = 2.5 * PAUSE  # seconds for which rank 0, whose process holds what ranks tell, stays to be heard
GRACE = 30.0  # seconds after a failure elsewhere for which a rank may go on without noticing
PYTHON = sysconfig.get_path("stdlib")
WAITING = ("torch/distributed/", "torch/autograd/")  # whose functions wait for other ranks
SHOWN, MOST = 300, 4  # characters of an error, ranks in a sentence
# What a rank meets because another one has gone.
_LOST = re.compile(r"(closed|reset) by peer|broken pipe|remote process|timed out waiting", re.IGNORECASE)


@dataclass(frozen=True)
class Failure:
    """What ended a run of several ranks."""

    text: str
    own: bool = False  # whether it happened on this rank
    told: bool = False  # whether this rank is to tell it


class RankWatch(L.Callback):
    """Where a rank fails, every rank comes to know which and why; where one keeps the others waiting, that is said."""

    def __init__(self) -> None:
        self.watch: Watch | None = None

    def setup(self, trainer: L.Trainer, pl_module: Any, stage: str) -> None:
        """Starts this rank's watch in a thread, where the run has several ranks."""
        if trainer.world_size > 1:
            self.watch = self._watch(trainer)
            self.watch.start()

    def teardown(self, trainer: L.Trainer, pl_module: Any, stage: str) -> None:
        """Stops the watch and waits for its thread."""
        if self.watch is not None:
            self.watch.stop()

    def on_exception(self, trainer: L.Trainer, pl_module: Any, exception: BaseException) -> None:
        """Agrees with the other ranks on what ended the run, and attaches that to the exception as its `failure`."""
        if trainer.world_size == 1 or not dist.is_initialized() or not isinstance(exception, Exception):
            return
        self.watch = self.watch or self._watch(trainer)
        processes = getattr(trainer.strategy.launcher, "procs", [])
        exception.failure = self.watch.end(exception, processes)  # pyright: ignore[reportAttributeAccessIssue]

    def _watch(self, trainer: L.Trainer) -> "Watch":
        store: Any = _get_default_store()
        return Watch(store.clone(), trainer.global_rank, trainer.world_size)


class Watch(threading.Thread):
    """One rank's eyes on the others, by way of a store that all of them have.

    Each rank writes down where its main thread is, and whether it waits there for others; rank 0 reads.

    Args:
        store: A client of the store of torch.distributed, which nobody else uses.
    """

    def __init__(self, store: Any, rank: int, ranks: int) -> None:
        super().__init__(name="rank-watch", daemon=True)
        self.store, self.rank, self.ranks = store, rank, ranks
        self.watched = threading.main_thread().ident
        self.over = threading.Event()
        self.failure: str | None = None
        self.due, self.beat = PATIENCE, 0
        self.stack: tuple[Any, ...] = ()
        self.since = time.monotonic()
        self.heard = {other: (-1, time.monotonic()) for other in range(ranks)}  # last beat, and when it came

    def run(self) -> None:
        """Look once a second until stopped; `GRACE` seconds after a failure elsewhere the process is ended."""
        while not self.over.wait(PAUSE):
            try:
                self.look()
            except RuntimeError:  # rank 0 has gone, and the store with it
                return
            if self.failure is not None and not self.over.wait(GRACE):
                os._exit(1)

    def look(self) -> None:
        """Write down where this rank is, and learn how the others are."""
        self.beat += 1
        self.store.set(f"{AT}{self.rank}", json.dumps([self.beat, *self.place()]))
        self.failure = self.read(FAILED)
        if self.rank == 0 and (said := self.waiting()):
            print(f"mgpo: {said}", file=sys.stderr, flush=True)

    def place(self) -> tuple[str, float | None]:
        """The main thread's innermost function that is no library's, and how long it has waited for other ranks.

        None where it does not.
        """
        frames = _frames(sys._current_frames().get(self.watched or 0))
        stack = tuple((frame.f_code, frame.f_lineno) for frame in frames)
        if stack != self.stack:
            self.stack, self.since = stack, time.monotonic()
        code, line = next((entry for entry in stack if not _of_a_library(entry[0].co_filename)), (None, 0))
        where = f"{code.co_name} ({os.path.basename(code.co_filename)}, line {line})" if code else "no function"
        waits = any(part in frame.f_code.co_filename for frame in frames for part in WAITING)
        return where, time.monotonic() - self.since if waits else None

    def waiting(self) -> str | None:
        """A sentence on who waits for whom, where it is time for one."""
        others = {rank: self.read(f"{AT}{rank}") for rank in range(self.ranks)}
        at = {rank: json.loads(text) for rank, text in others.items() if text is not None}
        for rank, (beat, _, _) in at.items():
            if beat != self.heard[rank][0]:
                self.heard[rank] = (beat, time.monotonic())
        silent = [rank for rank, (_, when) in self.heard.items() if time.monotonic() - when > 10 * PAUSE]
        waits = {rank: seconds for rank, (_, _, seconds) in at.items() if seconds is not None and rank not in silent}
        longest = max(waits.values(), default=0.0)
        if longest < self.due:
            self.due = PATIENCE if longest < PATIENCE else self.due
            return None
        self.due *= 2
        late = {rank: f"rank {rank}, which is in {at[rank][1]}" for rank in at if rank not in waits}
        late |= {rank: f"rank {rank}, which is not heard of" for rank in silent}
        who = _listed([f"rank {rank}" for rank in sorted(waits)])
        if late:
            return f"{who} has waited for {_minutes(longest)} for {_listed([late[rank] for rank in sorted(late)])}"
        where = _listed([f"rank {rank} in {at[rank][1]}" for rank in sorted(waits)])
        return f"for {_minutes(longest)} all ranks have waited for each other: {where}"

    def end(self, error: Exception, processes: Sequence[Any] = ()) -> Failure:
        """This rank ends: what ended the run, which is this error unless another rank failed before.

        Args:
            processes: Those that this one has started, from rank 1 on.
        """
        self.stop()
        mistake = find_user_error(error) or refused(error)
        mine = f"rank {self.rank}: {mistake}" if mistake else f"rank {self.rank} failed: {_line(error)}"
        lost = isinstance(error, RuntimeError) and _LOST.search(str(error)) is not None
        gone = f"a rank was ended without a word, which rank {self.rank} met as {_line(error)}"
        try:
            first = self.read(FAILED) if lost else self.store.compare_set(FAILED, "", mine).decode()
        except RuntimeError:
            first, gone = self.failure, "rank 0 was ended without a word"
        if first == mine and self.rank == 0:
            time.sleep(LINGER)
        text = first or _killed(processes) or gone
        return Failure(text, own=first == mine, told=first in (mine, None) or self.rank == 0)

    def stop(self) -> None:
        """Look no more: nobody is waited for between two stages, and a process may end with no thread in a store."""
        self.over.set()
        if self.is_alive():
            self.join()

    def read(self, key: str) -> str | None:
        """The text that ranks have stored under a key; None where there is none yet."""
        return self.store.get(key).decode() if self.store.check([key]) else None


def _of_a_library(file: str) -> bool:
    return "/torch/" in file or (file.startswith(PYTHON) and "site-packages" not in file)


def _frames(frame: FrameType | None) -> list[FrameType]:
    """From the innermost outwards."""
    frames: list[FrameType] = []
    while frame is not None:
        frames.append(frame)
        frame = frame.f_back
    return frames


def _killed(processes: Sequence[Any]) -> str | None:
    """The first of these processes that a signal has ended."""
    for rank, process in enumerate(processes, start=1):
        if (code := process.poll()) is not None and code < 0:
            why = ", as systems do where memory is short" if code == -signal.SIGKILL else ""
            return f"rank {rank} was ended by {signal.Signals(-code).name}{why}"
    return None


def _line(error: Exception) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())[:SHOWN]


def _listed(names: list[str]) -> str:
    more = f" and {len(names) - MOST} more" if len(names) > MOST else ""
    return ", ".join(names[:MOST]) + more


def _minutes(seconds: float) -> str:
    return f"{seconds / 60:.0f} minutes" if seconds >= 120 else f"{seconds:.0f} s"


def end_of_a_rank(error: Exception) -> None:
    """Ends this process where the run had several; the last line names the rank that failed, and why.

    What other ranks met because of that is not told.
    """
    failure = getattr(error, "failure", None)
    if isinstance(failure, Failure):
        if failure.own and not (find_user_error(error) or refused(error)):
            traceback.print_exception(error)
        raise SystemExit(f"mgpo: {failure.text}" if failure.told else 1) from None
