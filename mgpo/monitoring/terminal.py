"""How far some tasks are: live bars in a terminal, plain lines in files, pipes and notebooks."""

import logging
import sys
import time
from typing import TextIO

from rich.console import Console, Group
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from rich.text import Text


class Board:
    """Tasks by name, and one row of numbers below them.

    Args:
        every: Steps of a task from one plain line to the next.
    """

    def __init__(self, every: int) -> None:
        self.every = every
        self.console = Console()
        self.terminal = sys.stdout.isatty() and not self.console.is_dumb_terminal
        columns = (TextColumn("{task.description}"), MofNCompleteColumn(), BarColumn(None), TimeElapsedColumn())
        self.bars = Progress(*columns, TextColumn("{task.fields[left]}"), console=self.console, expand=True)
        self.tasks: dict[str, TaskID] = {}
        self.starts: dict[str, tuple[float, int]] = {}
        self.printed: dict[str, int] = {}
        self.numbers = ""
        self.live: Live | None = None

    def begin(self, name: str, total: int | None, done: int = 0) -> None:
        """Begin a task of `total` steps, if that is known, of which some may be done."""
        self.tasks[name] = self.bars.add_task(name, total=total, completed=done, left="")
        self.starts[name], self.printed[name] = (time.monotonic(), done), done

    def due(self, name: str, done: int) -> bool:
        """Whether so many steps are to be shown: in a terminal always."""
        every = done - self.printed[name] >= self.every or done == self._total(name)
        return self.terminal or (every and done > self.printed[name])

    def advance(self, name: str, done: int, numbers: str = "") -> None:
        """Show that so many steps of a task are done, with `numbers` and the time left, on its bar or as a line."""
        total = self._total(name)
        left = self._left(name, done, total)
        self.printed[name] = done
        if self.terminal:
            self.numbers = numbers or self.numbers
            self.bars.update(self.tasks[name], completed=done, left=left)
        else:
            of = "" if total is None else f"/{total:.0f}"
            print("  ".join(part for part in (f"{name} {done}{of}", numbers, left) if part), flush=True)

    def end(self, name: str) -> None:
        """End a task and take its bar off the board."""
        if name in self.tasks:
            self.bars.remove_task(self.tasks.pop(name))

    def show(self) -> None:
        """Draw the bars from here on, in a terminal; whatever is printed appears above them."""
        if self.terminal and self.live is None:
            self.live = Live(console=self.console, get_renderable=self._picture, transient=True)
            before = sys.stderr
            self.live.start()
            _send_logs(before, sys.stderr)

    def hide(self, keep: bool = False) -> None:
        """Stop drawing; the bars go, or with `keep` their last state stays behind."""
        if self.live is not None:
            proxy = sys.stderr
            self.live.stop()
            _send_logs(proxy, sys.stderr)
            self.live = None
        if keep and self.terminal and self.tasks:
            self.console.print(self._picture())

    def print(self, text: str, end: str = "\n") -> None:
        """Print a text above the bars; its lines are never broken."""
        # In a group, because the console joins bare texts into one that may be broken again.
        self.console.print(Group(Text(text, no_wrap=True, overflow="ignore", end=end)), end="", crop=False)

    def _picture(self) -> Group:
        return Group(self.bars, Text(self.numbers, no_wrap=True, overflow="ellipsis"))

    def _total(self, name: str) -> float | None:
        return self.bars.tasks[self.bars.task_ids.index(self.tasks[name])].total

    def _left(self, name: str, done: int, total: float | None) -> str:
        """The time that the rest will take, at the pace since the task began."""
        begun, first = self.starts[name]
        if total is None or done <= first:
            return ""
        seconds = int((time.monotonic() - begun) / (done - first) * (total - done))
        minutes, hours = seconds // 60 % 60, seconds // 3600
        return (f"{hours}:{minutes:02d}" if hours else f"{minutes}") + f":{seconds % 60:02d} left"


def _send_logs(before: TextIO, after: TextIO) -> None:
    """Loggers keep the stream that they found when they were made; past the bars, they would tear them."""
    for logger in (logging.root, *logging.root.manager.loggerDict.values()):
        for handler in getattr(logger, "handlers", ()):
            if isinstance(handler, logging.StreamHandler) and handler.stream is before:
                handler.setStream(after)
