"""Rows of JSON as they stand: what is quoted is a text, each row has the columns it has, whatever the others have.

A file is read row by row, so it may be larger than memory; images in it stay there until they are loaded.
"""

import codecs
import gzip
import json
import zlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import IO, Any, NamedTuple, cast

from mgpo.data.base import DataError
from mgpo.data.image_columns import CELL, EMBEDDED, Cell, LinePicture, is_embedded, labels, listed_in, read_row
from mgpo.data.row_source import ending

AT_LEAST = 1 << 20  # bytes read at a time
LONGEST_ROW = 800_000_000  # characters
UNFINISHED = 16  # characters before the end of a piece in which a number, a name or an escape may be cut
SPACE = " \t\n\r"


class Place(NamedTuple):
    """The place of a row: `number` is its line or, in a list, its place in that; `start` and `size` are in bytes."""

    file: Path
    number: int
    start: int
    size: int


class JsonTable:
    """Rows of .jsonl or .json files: an object on each line, or a list of objects; also compressed by gzip."""

    columns: Sequence[str] | None = None  # not known before the rows were read

    def __init__(self, paths: Sequence[Path], streaming: bool = False) -> None:
        self.pictures: Sequence[str] = ()  # columns that can hold nothing else
        self.seen: dict[str, None] = {}  # the columns of the rows that were read
        self.paths, self.folder = paths, paths[0].parent
        self.once = streaming or any(map(_is_gzip, paths))  # rows are not gone back to

    def rows(self, wanted: Callable[[str], bool], images: Sequence[str]) -> Iterator[tuple[int, dict[str, Any]]]:
        """Each row's number and its wanted columns, and its images under CELL. Raises DataError for what is no JSON."""
        for place, row in self._all():
            self.seen.update(dict.fromkeys(row))
            cells = {column: value for column, value in row.items() if wanted(column)}
            yield place.number, {**cells, CELL: self._cells(place, row, images)}

    def positions(self, column: str) -> dict[str, Place] | None:
        """Where rows stand, by what a column holds; None where they can't be gone back to."""
        if self.once:
            return None
        found: dict[str, Place] = {}
        for place, row in self._all():
            if isinstance(row.get(column), str | int):
                found.setdefault(str(row[column]), place)
        return found

    def cells_at(self, place: Place, images: Sequence[str]) -> list[Cell]:
        """The images of the row at a place that `positions` gave, read anew from its file."""
        return self._cells(place, read_row(place.file, place.start, place.size), images)

    def _cells(self, place: Place, row: dict[str, Any], images: Sequence[str]) -> list[Cell]:
        column = next((name for name in images if row.get(name) is not None), images[0])
        values, cells = listed_in(row.get(column)), []
        for i, (label, value) in enumerate(zip(labels(column, len(values)), values)):
            name = f"{place.file}: row {place.number}, column {label}"
            stored = None if self.once else LinePicture(str(place.file), place.start, place.size, column, name, i)
            cells.append(Cell(label, EMBEDDED if stored is not None and is_embedded(value) else value, stored))
        return cells

    def _all(self) -> Iterator[tuple[Place, dict[str, Any]]]:
        before = number = 0
        for path in self.paths:
            for number, start, size, row in read_rows(path):
                yield Place(path, before + number, start, size), row
            before += number


def read_rows(path: Path) -> Iterator[tuple[int, int, int, dict[str, Any]]]:
    """Each row with its number (its line or, in a list, its place there), its first byte and its size in bytes.

    Raises DataError, which names the line, for what is no JSON.
    """
    name = ending(str(path))
    try:
        with gzip.open(path, "rb") if _is_gzip(path) else path.open("rb") as file:
            yield from _Reader(cast(IO[bytes], file)).rows()
    except UnicodeDecodeError:
        raise DataError(f"{name}: the file can't be read: it is not UTF-8") from None
    except _NoRow as error:
        where = f"{name}, line {error.line}"
        raise DataError(f"{where}: this is no JSON object, so the file can't be read ({error})") from None
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{name}: the file can't be read ({str(error)[:200]})") from None


def _is_gzip(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(2) == b"\x1f\x8b"


class _NoRow(Exception):
    def __init__(self, line: int, reason: str) -> None:
        super().__init__(reason)
        self.line = line


class _Reader:
    """Goes through a file in pieces that hold at least the row in hand; `at` is how far it has come in the piece."""

    def __init__(self, file: IO[bytes]) -> None:
        self.file, self.text, self.at, self.done = file, "", 0, False
        self.line, self.offset = 1, 0
        self.decoder = codecs.getincrementaldecoder("utf-8")()
        self.decode = json.JSONDecoder(object_pairs_hook=_once).raw_decode

    def rows(self) -> Iterator[tuple[int, int, int, dict[str, Any]]]:
        self._more()
        if self.text[:1] == "\ufeff":
            self._go(1)
        many = self._next() == "["
        if many:
            self._go(self.at + 1)
        number = last = 0
        while (sign := self._next()) != "":
            if many and sign == "]":
                self._go(self.at + 1)
                many = False
                if self._next():
                    raise _NoRow(self.line, "something stands behind the list of rows")
                return
            if not many and self.line == last:
                raise _NoRow(self.line, "there is more on the line than one")
            line, start = self.line, self.offset
            row = self._row()
            number = number + 1 if many else line
            yield number, start, self.offset - start, row
            last = self.line
            if many and self._next() == ",":
                self._go(self.at + 1)
            elif many and self._next() != "]":
                raise _NoRow(self.line, "a comma or the end of the list is missing")
        if many:
            raise _NoRow(self.line, "the list of rows does not end")

    def _row(self) -> dict[str, Any]:
        while True:
            try:
                row, end = self.decode(self.text, self.at)
            except RecursionError:
                raise _NoRow(self.line, "lists or objects are nested too deep") from None
            except json.JSONDecodeError as error:
                cut = error.pos >= len(self.text) - UNFINISHED or error.msg.startswith("Unterminated string")
                if self.done or not cut or len(self.text) > LONGEST_ROW:
                    raise _NoRow(self.line, error.msg) from None
                self._more()
                continue
            except ValueError as error:
                raise _NoRow(self.line, str(error)[:100]) from None
            if not isinstance(row, dict):
                what = "null" if row is None else type(row).__name__
                raise _NoRow(self.line, f"{what} stands where a row should")
            self._go(end)
            return row

    def _next(self) -> str:
        """The next character that is no space; "" at the end."""
        while True:
            at = self.at
            while at < len(self.text) and self.text[at] in SPACE:
                at += 1
            self._go(at)
            if at < len(self.text) or self.done:
                return self.text[at : at + 1]
            self._more()

    def _go(self, to: int) -> None:
        passed = self.text[self.at : to]
        self.line += passed.count("\n")
        self.offset += len(passed) if passed.isascii() else len(passed.encode())
        self.at = to

    def _more(self) -> None:
        data = self.file.read(max(AT_LEAST, len(self.text) - self.at))
        self.done = not data
        self.text, self.at = self.text[self.at :] + self.decoder.decode(data, self.done), 0


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"{twice[:60]!r} stands twice in it")
    return made
