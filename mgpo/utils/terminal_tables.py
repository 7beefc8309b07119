"""Texts as a terminal can show them, and tables as wide as it is: no row goes over the edge or under another column."""

import shutil
from collections.abc import Iterable

from rich.console import Console
from rich.table import Table

NAME = 32  # characters of a name for which a table gives up columns


def columns_here() -> int:
    """The columns of the terminal; 80 where the output goes into a file and COLUMNS says nothing."""
    return shutil.get_terminal_size().columns


def printable(text: str) -> str:
    """A text that a terminal shows as it is, without control characters."""
    return "".join(sign if sign.isprintable() or sign == "\n" else "�" for sign in text)


def render(table: Table, width: int | None = None) -> str:
    """A table as plain text."""
    console = Console(width=width or columns_here(), color_system=None, force_jupyter=False)
    with console.capture() as capture:
        console.print(table)
    return capture.get()


def with_sentences(table: Table, width: int | None = None) -> str:
    """A table whose last column holds sentences, as plain text: they go on below, in their own column, and no word is
    cut; what stands before them keeps to its line."""
    *before, last = table.columns
    for column in before:
        column.no_wrap = True
    last.overflow = "fold"
    return render(table, width)


def first_that_fits(tables: Iterable[Table], width: int | None = None) -> str:
    """The first table that is no wider than the terminal, as plain text, or the last one.

    The names in the first column are cut where all else would not fit otherwise; those of `NAME` characters are not.
    """
    room, console = width or columns_here(), Console(width=10_000, force_jupyter=False)
    chosen, spare = Table(), 0
    for chosen in tables:
        name = console.measure(Table(chosen.columns[0], box=None, padding=0, show_header=False)).maximum
        spare = room - console.measure(chosen).maximum + name
        if spare >= min(name, NAME):
            break
    for column in chosen.columns:
        column.no_wrap = True
    chosen.columns[0].max_width = max(1, spare)
    return render(chosen, room)
