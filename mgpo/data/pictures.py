"""What a cell of an image column may be: encoded bytes, base64 text, a path, or an address."""

import base64
import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any, cast

import datasets
import pyarrow as pa
import pyarrow.compute as pc
from PIL import Image

from mgpo.data.sources import DataError
from mgpo.data.web import SCHEMES, WebPicture, keep
from mgpo.images import LARGEST_FILE, BadImage, FilePicture, check_data, check_image, decode_image, is_file
from mgpo.types import Picture

LONGEST_PATH = 4096  # characters; what is longer is an image itself
ENCODED = (pa.types.is_string, pa.types.is_large_string, pa.types.is_binary, pa.types.is_large_binary)
CACHE = Path.home() / ".cache" / "mgpo" / "images"


@dataclass(frozen=True)
class CellPicture:
    """An image that lies in a memory-mapped table: it is read from there whenever it is loaded."""

    table: datasets.Dataset  # of the image column alone
    row: int
    name: str

    def load(self) -> Image.Image:
        return decode_image(self.read(), self.name)

    def read(self) -> bytes:
        """The file as it was put into the table. Raises BadImage."""
        (cell,) = self.table[self.row].values()
        return encoded(cell, self.name)


@dataclass(frozen=True)
class Places:
    """Where pictures that are not in the rows themselves are found, and where they are kept.

    `private` allows addresses in one's own network.
    """

    folder: Path
    cache: Path = CACHE
    private: bool = False

    def picture(self, cell: Any, column: str, sha256: str | None = None) -> Picture | None:
        """The picture that a path or an address stands for; None where the cell is an image itself.

        Raises DataError for a cell that is empty, or whose file can't be used.
        """
        place = cell.get("path") if isinstance(cell, dict) and not cell.get("bytes") else cell
        if place is None or place == "" or place == b"":
            raise DataError(f"column {column}: it is empty")
        if not isinstance(place, str) or len(place) > LONGEST_PATH or place.startswith("data:"):
            return None
        if "://" in place:
            if not place.lower().startswith(SCHEMES):
                raise DataError(f"column {column}: {place[:100]!r} is no http or https address")
            return WebPicture(place, str(self.cache), sha256, self.private)
        if PurePath(place).suffix or is_file(self.folder / place):  # base64 has no full stop
            return FilePicture(str(inside(self.folder, place, column)))
        return None

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


def inside(folder: Path, name: str, column: str) -> Path:
    """The image file of that name, which must lie in the folder. Raises DataError."""
    path = folder / name
    check_inside(folder, name, column)
    try:
        check_image(path)
    except BadImage as error:
        raise DataError(f"column {column}: {error}") from None
    return path


def check_inside(folder: Path, name: str, column: str) -> None:
    """Raises DataError for a name that leads out of a folder, links followed, and for one that no file can have."""
    if len(name) > LONGEST_PATH:
        raise DataError(f"column {column}: no file can be called {name[:100]!r} and so on")
    try:
        within = (folder / name).resolve().is_relative_to(folder.resolve())
    except (OSError, RuntimeError, ValueError):
        raise DataError(f"column {column}: no file can be called {name[:100]!r}") from None
    if not within:
        raise DataError(f"column {column}: {name!r} leads out of {folder}")


def encoded(cell: Any, name: str) -> bytes:
    """The bytes of an image file in a cell: bytes, {"bytes": …}, or base64 text. Raises BadImage."""
    cell = cell["bytes"] if isinstance(cell, dict) else cell
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


def sizes(table: datasets.Dataset) -> Iterator[int]:
    """For each cell of a table of one image column, how long it is; the cells themselves are not read.

    Raises DataError where the column can hold no images.
    """
    for batch in cast(Iterator[pa.Table], table.with_format("arrow").iter(1000)):
        for chunk in batch.column(0).chunks:
            cells = chunk.field("bytes") if pa.types.is_struct(chunk.type) else chunk
            if not any(holds(cells.type) for holds in ENCODED):
                raise DataError(f"column {table.column_names[0]}: images are needed, not {cells.type}")
            lengths = pc.call_function("binary_length", [cells])
            yield from (length or 0 for length in lengths.to_pylist())
