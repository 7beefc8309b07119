"""Rows of tables that `datasets` opens. Images in them stay encoded, and on the disk, until they are loaded."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, cast

import datasets
import pyarrow as pa
import pyarrow.compute as pc

from mgpo.data.base import DataError
from mgpo.data.image_columns import CELL, EMBEDDED, LONGEST_PATH, Cell, CellPicture, labels, listed_in

ENCODED = (pa.types.is_string, pa.types.is_large_string, pa.types.is_binary, pa.types.is_large_binary)
LISTS = (pa.types.is_list, pa.types.is_large_list)


class ArrowTable:
    """A table of `datasets`, memory-mapped or streamed.

    Args:
        table: The rows.
        name: What they are called in messages.
        folder: Where its paths lead, if that is known.
    """

    def __init__(
        self, table: datasets.Dataset | datasets.IterableDataset, name: str, folder: Path | None = None
    ) -> None:
        self.table, self.name, self.folder = keep_encoded(table), name, folder
        self.features = self.table.features or {}
        self.columns: Sequence[str] | None = self.table.column_names or list(next(iter(self.table), {}))
        self.seen = dict.fromkeys(self.columns)
        self.pictures = [name for name, feature in self.features.items() if _is_binary(feature)]
        self.cells: datasets.Dataset | None = None  # the images alone

    def rows(self, wanted: Callable[[str], bool], images: Sequence[str]) -> Iterator[tuple[int, dict[str, Any]]]:
        """Each row's number and wanted columns, and its images under CELL. Raises DataError for what is no image."""
        names = [name for name in self.columns or () if wanted(name) and name not in self.pictures]
        classes = {name: f for name in names if isinstance(f := self.features.get(name), datasets.ClassLabel)}
        for number, (row, cells) in enumerate(self._pairs(names, images), start=1):
            named = {name: _label(feature, row[name]) for name, feature in classes.items()}
            yield number, {**row, **named, CELL: cells}

    def positions(self, column: str) -> dict[str, int] | None:
        """The place of the first row with each value of a column, by that value as a text.

        None where rows can't be gone back to.
        """
        if not isinstance(self.table, datasets.Dataset):
            return None
        found: dict[str, int] = {}
        for i, value in enumerate(self.table[column] if column in (self.columns or ()) else ()):
            found.setdefault(str(value), i)
        return found

    def cells_at(self, place: int, images: Sequence[str]) -> list[Cell]:
        """The images of the row at a place that `positions` gave."""
        return next(self._images(self._image(images), place))

    def _pairs(self, names: list[str], images: Sequence[str]) -> Iterator[tuple[dict[str, Any], list[Cell]]]:
        image = self._image(images)
        if isinstance(self.table, datasets.Dataset):
            rows = self.table.select_columns(names) if names else [{}] * len(self.table)
            yield from zip(cast(Iterable[dict[str, Any]], rows), self._images(image))
            return
        for row in cast(Iterable[dict[str, Any]], self.table):
            values = listed_in(row.get(image))
            cells = [Cell(label, value, None) for label, value in zip(labels(image, len(values)), values)]
            yield {name: row.get(name) for name in names}, cells

    def _image(self, images: Sequence[str]) -> str:
        return next((name for name in images if name in (self.columns or ())), images[0])

    def _images(self, column: str, start: int = 0) -> Iterator[list[Cell]]:
        table = cast(datasets.Dataset, self.table)
        if column not in (self.columns or ()):
            yield from [[Cell(column, None, None)]] * len(table)
            return
        self.cells = cells = table.select_columns([column])
        for i, lengths in enumerate(sizes(cells.select(range(start, len(cells))) if start else cells), start):
            found = []
            for place, (label, size) in enumerate(zip(labels(column, len(lengths)), lengths)):
                stored = CellPicture(cells, i, f"{self.name}: row {i + 1}, column {label}", place)
                found.append(Cell(label, EMBEDDED if size > LONGEST_PATH else stored.cell(), stored))
            yield found


def keep_encoded(
    table: datasets.Dataset | datasets.IterableDataset,
) -> datasets.Dataset | datasets.IterableDataset:
    """The same table with image columns, and lists of images, that give {"bytes", "path"} instead of decoding."""
    for column, feature in (table.features or {}).items():
        if holds_images(feature):
            table = table.cast_column(column, _encoded(feature))
    return table


def holds_images(feature: Any) -> bool:
    """Whether a column's feature is an image, or a list or an object with some."""
    if isinstance(feature, dict):
        return any(map(holds_images, feature.values()))
    inner = getattr(feature, "feature", None)
    return isinstance(feature, datasets.Image) or (inner is not None and holds_images(inner))


def _is_binary(feature: Any) -> bool:
    return holds_images(feature) or getattr(feature, "dtype", None) in ("binary", "large_binary")


def _encoded(feature: Any) -> Any:
    if isinstance(feature, datasets.Image):
        return datasets.Image(decode=False)
    if isinstance(feature, dict):
        return {name: _encoded(inner) for name, inner in feature.items()}
    return datasets.List(_encoded(feature.feature)) if getattr(feature, "feature", None) is not None else feature


def _label(feature: datasets.ClassLabel, value: Any) -> Any:
    """The name of a class; its number is the table's own."""
    return feature.int2str(value) if isinstance(value, int) and value >= 0 else None


def sizes(table: datasets.Dataset) -> Iterator[list[int]]:
    """For each cell of a table of one image column, how long its images are; none is read.

    Raises DataError where the column can hold no images.
    """
    for batch in cast(Iterator[pa.Table], table.with_format("arrow").iter(1000)):
        for chunk in batch.column(0).chunks:
            if pa.types.is_fixed_size_list(chunk.type):
                chunk = chunk.cast(pa.list_(chunk.type.value_type))
            if not any(holds(chunk.type) for holds in LISTS):
                yield from ([length] for length in _lengths(chunk, table))
                continue
            lengths, offsets = _lengths(chunk.values, table), chunk.offsets.to_pylist()
            for first, end in pairwise(offsets):
                yield lengths[first:end] or [0]


def _lengths(cells: pa.Array, table: datasets.Dataset) -> list[int]:
    column = table.column_names[0]
    if pa.types.is_struct(cells.type):
        names = [field.name for field in cells.type]
        if "bytes" not in names:
            raise DataError(f"column {column}: images are needed, not {str(cells.type)[:100]}")
        cells = cells.field("bytes")
    if pa.types.is_null(cells.type):  # all are files elsewhere
        return [0] * len(cells)
    if not any(holds(cells.type) for holds in ENCODED):
        raise DataError(f"column {column}: images are needed, not {str(cells.type)[:100]}")
    return [length or 0 for length in pc.call_function("binary_length", [cells]).to_pylist()]
