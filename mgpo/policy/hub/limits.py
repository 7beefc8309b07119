"""Limits of time and memory on work that strangers' files prescribe."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

PAGE = 4096
SIZES = Path("/proc/self/statm")  # pages of address space come first


@contextmanager
def bounded(seconds: float, size: int) -> Iterator[None]:
    """Within it TimeoutError is raised after a while, and MemoryError when more than `size` bytes are asked for.

    Signals reach the main thread alone, so in others time is not limited; memory is limited where Linux says how much
    is in use.
    """
    timed = threading.current_thread() is threading.main_thread()
    with _timed(seconds) if timed else nullcontext(), _limited(size) if SIZES.exists() else nullcontext():
        yield


@contextmanager
def _timed(seconds: float) -> Iterator[None]:
    handler = signal.signal(signal.SIGALRM, _late)
    before = signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, *before)
        signal.signal(signal.SIGALRM, handler)


def _late(*_: Any) -> None:
    raise TimeoutError


@contextmanager
def _limited(size: int) -> Iterator[None]:
    import resource  # which not every system has

    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    highest = int(SIZES.read_text().split()[0]) * PAGE + size
    if soft == resource.RLIM_INFINITY or highest < soft:
        resource.setrlimit(resource.RLIMIT_AS, (highest, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))
