"""Where time goes: functions are wrapped, and every moment belongs to the innermost of them that runs."""

import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import wraps
from threading import get_ident
from typing import Any
from unittest.mock import patch

Name = str | Callable[["Timers", tuple[Any, ...]], str]  # a phase, or how it is told from what runs and the arguments


class Timers:
    """Seconds of the thread that made it by phase, each without those of the phases inside it."""

    def __init__(self, now: Callable[[], float] = time.perf_counter) -> None:
        self.now, self.thread = now, get_ident()
        self.seconds: dict[str, float] = defaultdict(float)
        self.running: list[str] = ["elsewhere"]
        self.since = now()

    def reset(self) -> None:
        """Forget what was measured; what runs goes on."""
        self.charge()
        self.seconds.clear()

    def charge(self) -> None:
        """The time since the last change belongs to what runs."""
        now = self.now()
        self.seconds[self.running[-1]] += now - self.since
        self.since = now

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        self.charge()
        self.running.append(name)
        try:
            yield
        finally:
            self.charge()
            self.running.pop()

    @contextmanager
    def wrapped(self, functions: list[tuple[Any, str, Name]]) -> Iterator[None]:
        """Time these: (where it stands, its name there, its phase)."""
        with ExitStack() as stack:
            for owner, name, phase in functions:
                stack.enter_context(patch.object(owner, name, self._wrap(getattr(owner, name), phase)))
            yield

    def _wrap(self, function: Callable[..., Any], phase: Name) -> Callable[..., Any]:
        @wraps(function)  # configurations are checked against signatures
        def timed(*args: Any, **kwargs: Any) -> Any:
            if get_ident() != self.thread:
                return function(*args, **kwargs)
            with self.phase(phase if isinstance(phase, str) else phase(self, args)):
                return function(*args, **kwargs)

        return timed
