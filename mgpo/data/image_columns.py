"""What a cell of an image column may be: encoded bytes, base64 text, a path, or an address."""

import base64
import hashlib
import json
from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from pathlib import Path, PurePath
from typing import Any, NamedTuple

import datasets
from PIL import Image

from mgpo.data.base import DataError
from mgpo.data.remote_images import SCHEMES, WebPicture, keep
from mgpo.images.decoding import (
    LARGEST_FILE,
    BadImage,
    FilePicture,
    Picture,
    check_data,
    check_image,
    decode_image,
    is_file,
)

LONGEST_PATH = 4096  # characters; what is longer is an image itself
MOST_PICTURES = 32  # of a row
CELL = "__image__"  # a row's image cells
EMBEDDED = b"in the table"  # in a cell's place where it is long: it stays in the table until the picture is loaded
CACHE = Path.home() / ".cache" / "mgpo" / "images"


class _Encoded(ABC):
    """An image that stays encoded where it lies until it is loaded."""

    name: str

    @abstractmethod
    def cell(self) -> Any:
        """What lies there: bytes, or base64 text."""

    def read(self) -> bytes:
        """The image file itself. Raises BadImage."""
        return encoded(self.cell(), self.name)

    def load(self) -> Image.Image:
        """The image, decoded. Raises BadImage."""
        return decode_image(self.read(), self.name)


@dataclass(frozen=True)
class CellPicture(_Encoded):
    """An image that lies in a memory-mapped table: it is read from there whenever it is loaded."""

    table: datasets.Dataset  # of the image column alone
    row: int
    name: str
    place: int = 0  # among the row's images

    def cell(self) -> Any:
        """What the table holds of the image: bytes, base64 text, or an entry of a list of them."""
        (cell,) = self.table[self.row].values()
        return listed_in(cell)[self.place]


@dataclass(frozen=True)
class LinePicture(_Encoded):
    """An image that stands in a row of a JSON file: it is read from there whenever it is loaded."""

    file: str
    start: int
    size: int
    column: str
    name: str
    place: int = 0  # among the row's images

    def cell(self) -> Any:
        """What the row holds of the image. Raises BadImage where the file has changed since the row was found."""
        try:
            return listed_in(read_row(Path(self.file), self.start, self.size)[self.column])[self.place]
        except (OSError, ValueError, LookupError, TypeError):
            raise BadImage(f"{self.name}: the file is no longer what it was") from None


def read_row(file: Path, start: int, size: int) -> dict[str, Any]:
    """Read the object that takes up `size` bytes of a file from `start` on, without the rest of it."""
    with file.open("rb") as rows:
        rows.seek(start)
        return json.loads(rows.read(size))


class Cell(NamedTuple):
    """One image of a row: the column that it was found in, its value, and how to read it again."""

    column: str  # and, of several, which it is
    value: Any  # EMBEDDED where it is long
    stored: CellPicture | LinePicture | None  # by which it is read again; None where it can't be


def listed_in(value: Any) -> list[Any]:
    """The images in a column that may hold a list of them; an empty list is an image that is missing."""
    return (value or [None]) if isinstance(value, list) else [value]


def labels(column: str, count: int) -> list[str]:
    """What each image of a column is called in messages."""
    return [column] if count == 1 else [f"{column}, picture {number}" for number in range(1, count + 1)]


def is_embedded(cell: Any) -> bool:
    """Whether a cell is an image file itself, rather than the name of one."""
    if isinstance(cell, dict):
        return bool(cell.get("bytes"))
    return isinstance(cell, bytes) or (isinstance(cell, str) and (len(cell) > LONGEST_PATH or cell[:5] == "data:"))


@dataclass(frozen=True)
class Places:
    """Where pictures that are not in the rows themselves are found, and where they are kept.

    `private` allows addresses in one's own network. Where files are not `checked`, a bad one shows when it is opened.
    """

    folder: Path
    cache: Path = CACHE
    private: bool = False
    checked: bool = True
    moved: dict[str, str] = field(default_factory=dict)  # names of files in the folder, by the paths they had elsewhere
    sound: set[str] = field(default_factory=set)  # names of files that need no second look

    def picture(self, cell: Any, column: str, sha256: str | None = None) -> Picture | None:
        """The picture that a path or an address stands for; None where the cell is an image itself.

        Raises DataError for a cell that is empty, or whose file can't be used.
        """
        place = cell
        if isinstance(cell, dict) and not cell.get("bytes"):
            place = self._moved(cell.get("path"), column)
        if place is None or place == b"" or (isinstance(place, str) and not place.strip()):
            raise DataError(f"column {column}: it is empty")
        if not isinstance(place, str) or len(place) > LONGEST_PATH or place.startswith("data:"):
            return None
        if "://" in place:
            if not place.lower().startswith(SCHEMES):
                raise DataError(f"column {column}: {place[:100]!r} is no http or https address")
            return WebPicture(place, str(self.cache), sha256, self.private)
        path = self.folder / place
        if place in self.sound:
            return FilePicture(str(path))
        if not PurePath(place).suffix and not is_file(path):  # base64 has no full stop
            return None
        check_inside(self.folder, place, column)
        if self.checked:
            _check(path, place, column)
            self.sound.add(place)
        return FilePicture(str(path))

    def _moved(self, path: Any, column: str) -> Any:
        """A path that `datasets` noted on the machine where a table was made, by as much of its end as is here too."""
        if not isinstance(path, str) or not PurePath(path).is_absolute() or is_file(Path(path)):
            return path
        ends = (PurePath(*PurePath(path).parts[i:]) for i in range(1, len(PurePath(path).parts)))
        here = next((str(end) for end in ends if is_file(self.folder / end)), None)
        if here is None:
            raise DataError(f"column {column}: {path[-100:]!r} is a path of another machine, and no such file is here")
        if here in self.moved.values() and self.moved.get(path) != here:
            raise DataError(f"column {column}: {here[-100:]!r} is here once, but had several paths on another machine")
        self.moved[path] = here
        return here

    def kept(self, cell: Any, column: str) -> FilePicture:
        """An image that was in a row, written into the cache. Raises DataError."""
        try:
            data = encoded(cell, f"column {column}")
            check_data(data, f"column {column}")
        except BadImage as error:
            raise DataError(str(error)) from None
        path = self.cache / hashlib.sha256(data).hexdigest()
        if not path.is_file():
            keep(data, path)
        return FilePicture(str(path))


def _check(path: Path, name: str, column: str) -> None:
    try:
        check_image(path)
    except BadImage as error:
        reason = str(error).removeprefix(f"{path}: ")
        raise DataError(f"column {column}: {name if len(name) <= 100 else f'…{name[-100:]}'}: {reason}") from None


def check_inside(folder: Path, name: str, column: str) -> None:
    """Raises DataError for a name that leads out of a folder, links followed, and for one that no file can have."""
    if len(name) > LONGEST_PATH:
        raise DataError(f"column {column}: no file can be called {name[:100]!r} and so on")
    try:
        within = (folder / name).resolve().is_relative_to(folder.resolve())
    except (OSError, RuntimeError, ValueError):
        raise DataError(f"column {column}: no file can be called {name[:100]!r}") from None
    if not within:
        raise DataError(f"column {column}: {name[:100]!r} leads out of the folder of images")


def encoded(cell: Any, name: str) -> bytes:
    """The bytes of an image file in a cell: bytes, {"bytes": …}, or base64 text. Raises BadImage."""
    cell = cell.get("bytes") if isinstance(cell, dict) else cell
    if isinstance(cell, bytes):
        return cell
    if not isinstance(cell, str):
        raise BadImage(f"{name}: an image is needed, not {type(cell).__name__}")
    if len(cell) > LARGEST_FILE * 4 // 3:
        raise BadImage(f"{name}: the file has more than the {LARGEST_FILE:,} bytes that are read")
    text = cell.partition(",")[2] if cell.startswith("data:") else cell
    try:
        return base64.b64decode("".join(text.split()), validate=True)
    except ValueError:
        raise BadImage(f"{name}: this is neither base64 text nor the name of a file") from None
