"""Sources whose rows lie in a table, on the disk or on the hub, and whose pictures lie in it too, or elsewhere."""

from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import PurePath
from typing import Any

import datasets

from mgpo.data.base import DataError
from mgpo.data.image_columns import CELL, MOST_PICTURES, Cell, Places, check_inside, encoded
from mgpo.data.row_source import Row, RowSource, check_columns, shown
from mgpo.data.tables import Table
from mgpo.images.decoding import BadImage, Picture, check_data, is_file
from mgpo.utils.least_values import at_least

LONGEST_INDEX = 64  # characters


class StoredRows(RowSource):
    """Questions from a table's rows, of whose columns only those that are named are read.

    A picture may be named by the index of another row, which has it, as large TSV files do to save space.

    Args:
        table: The rows.
        name: What they are called in messages.
        places: Where pictures are that are not in them.
        limit: Only so many rows, from the top.

    Raises:
        DataError: If a column is missing, or no row can be used.
    """

    columns: Sequence[str] = ()  # that must be there, besides the image
    extra: Sequence[str] = ()  # that are read where they are there; all others never are
    image_columns: Sequence[str] = ("image",)  # the first of these that is there
    remedy: str = ""  # what to do where one is missing
    index_column: str = "index"  # by which rows name each other's pictures

    def __init__(self, table: Table, name: str, places: Places, limit: int | None = None) -> None:
        self.table, self.places = table, places
        self.positions: dict[str, Any] | None = None  # of rows, by their index; when the first is asked for
        self.passed: dict[str, Picture] = {}  # pictures by index, where a row can't be gone back to
        at_least(name, limit=limit)
        super().__init__(name, self._rows(limit))

    @property
    def cells(self) -> datasets.Dataset | None:
        """The images alone, where they lie in a memory-mapped table."""
        return getattr(self.table, "cells", None)

    def wanted(self, column: str) -> bool:
        """Whether a column is read with the rows: those that are asked for by name, and the index."""
        return column in self.columns or column in self.extra or column == self.index_column

    def check(self, columns: Sequence[str]) -> None:
        """Look at the columns that there are. Raises DataError where one is missing."""
        image = next((name for name in self.image_columns if name in columns), self.image_columns[0])
        check_columns(self.name, columns, (image, *self.columns), self.remedy)

    def pictures(self, row: Row, number: int) -> tuple[Picture, ...]:
        """Where the row's images are to be had, in order. Raises DataError or BadImage."""
        cells: list[Cell] = row[CELL]
        if len(cells) > MOST_PICTURES:
            column = cells[0].column.partition(", picture ")[0]
            raise DataError(f"column {column}: {len(cells)} pictures; a question can have {MOST_PICTURES}")
        if len(cells) > 1:
            return tuple(self._other(cell) or self._own(cell) for cell in cells)
        (cell,) = cells
        picture = self._other(cell) or self._own(cell, row.get("image_sha256"))
        index = row.get(self.index_column)
        if cell.stored is None and isinstance(index, str | int):
            self.passed.setdefault(str(index), picture)
        return (picture,)

    def _own(self, cell: Cell, sha256: str | None = None) -> Picture:
        elsewhere = self.places.picture(cell.value, cell.column, sha256)
        if elsewhere is not None:
            return elsewhere
        return cell.stored if cell.stored is not None else self.places.kept(cell.value, cell.column)

    def _other(self, cell: Cell) -> Picture | None:
        """The picture of the row that a cell names by its index; None where the cell is a picture's own."""
        if not self._is_index(cell.value):
            return None
        name = str(cell.value).strip()
        if self.positions is None:
            self.positions = self.table.positions(self.index_column) or {}
        if name in self.passed:
            return self.passed[name]
        if name in self.positions:
            found, *others = self.table.cells_at(self.positions[name], self.image_columns)
            if not others and not self._is_index(found.value):
                return self._own(found)
            raise DataError(f"column {cell.column}: it names row {shown(name)}, which has no picture of its own")
        check_inside(self.places.folder, name, cell.column)
        if self.places.checked and not PurePath(name).suffix:
            try:
                check_data(encoded(cell.value, "it"), "it")
            except BadImage:
                reason = (
                    f"{shown(name)} is neither an image, nor the name of one, nor another row's {self.index_column}"
                )
                raise DataError(f"column {cell.column}: {reason}") from None
        return None

    def _is_index(self, value: Any) -> bool:
        if isinstance(value, bool) or not isinstance(value, str | int):
            return False
        name = str(value).strip()
        if not 0 < len(name) <= LONGEST_INDEX or "://" in name or name in self.places.sound:
            return False
        return not is_file(self.places.folder / name)

    def _rows(self, limit: int | None) -> Iterator[tuple[int, Row]]:
        if self.table.columns is not None:
            self.check(self.table.columns)
        missing = dict.fromkeys(self.columns)
        for number, row in islice(self.table.rows(self.wanted, self.image_columns), limit):
            yield number, {**missing, **row}
        if self.table.columns is None and self.table.seen:
            self.check(list(self.table.seen))
