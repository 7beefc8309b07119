"""What benchmarks share: opening their rows, from the disk or the hub, and their pictures, in the rows or elsewhere."""

from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any, ClassVar, cast

import datasets

from mgpo.data.pictures import CACHE, LONGEST_PATH, CellPicture, Places, sizes
from mgpo.data.rows import Row, RowSource, check_columns
from mgpo.data.sources import DataError
from mgpo.data.tables import Table, keep_encoded, open_file, open_folder, open_hub
from mgpo.types import Picture, Question

CELL = "__image__"  # a row's image cell
EMBEDDED = b"in the table"  # in its place where it is long: it stays in the table until the picture is loaded


class Benchmark(RowSource):
    """A benchmark from a local copy (`path`) or, where there is none, from the hub.

    Images may be encoded in the rows (bytes, or base64 text), or be paths or http(s) addresses. What lies in
    a local table is read from there when a picture is loaded, so a copy may be larger than memory. A
    streamed table is passed through once; its images are written into the cache.

    Args:
        path: A downloaded repository, a folder of `save_to_disk`, or one .parquet, .jsonl or .tsv file.
        hub: The repository on the hub; by default the benchmark's own.
        config: The repository's configuration; by default the benchmark's own.
        hub_split: The split to read; by default the benchmark's own.
        images: The folder of images that are paths; by default that of `path`.
        streaming: Do not download the whole table (hub), or do not convert it (files), before its rows are read.
        limit: Only so many rows, from the top.
        cache: Where fetched and streamed images are kept.
        split: The name under which results are reported; by default the benchmark's own.
        private: Fetch pictures from addresses in one's own network, and of this machine, too.

    Raises:
        DataError: If the rows can't be had, lack a column, or can none of them be used.
    """

    HUB: ClassVar[str | None] = None
    CONFIG: ClassVar[str | None] = None
    HUB_SPLIT: ClassVar[str] = "test"
    SPLIT: ClassVar[str] = "benchmark"
    columns: tuple[str, ...] = ()  # that must be there, besides the image
    extra: tuple[str, ...] = ()  # that are read where they are there; all others never are
    image_columns: tuple[str, ...] = ("image",)  # the first of these that is there
    score: str = "accuracy"  # how its records are scored: a name in mgpo.scoring
    title: str = ""  # of its column in the table of published figures

    def __init__(
        self,
        path: str | None = None,
        hub: str | None = None,
        config: str | None = None,
        hub_split: str | None = None,
        images: str | None = None,
        streaming: bool = False,
        limit: int | None = None,
        cache: str = str(CACHE),
        split: str | None = None,
        private: bool = False,
    ) -> None:
        self.split = split or self.SPLIT
        config, hub_split, hub = config or self.CONFIG, hub_split or self.HUB_SPLIT, hub or self.HUB
        if path is None and hub is None:
            raise DataError(f"{type(self).__name__}: name a local copy in `path`, or a repository in `hub`")
        self.name = path or str(hub)
        table = self.open(path, hub, config, hub_split, streaming)
        first = Path(path or ".")
        folder = Path(images) if images else first if first.is_dir() else first.parent
        self.places = Places(folder, Path(cache), private)
        rows = self._rows(keep_encoded(table))
        super().__init__(self.name, rows if limit is None else islice(rows, limit))

    def open(self, path: str | None, hub: str | None, config: str | None, split: str, streaming: bool) -> Table:
        """The table; a benchmark that is published in another form than rows overrides this."""
        if path is None:
            return open_hub(str(hub), config, split, streaming)
        if Path(path).is_dir():
            return open_folder(Path(path), config, split, streaming)
        return open_file(Path(path), streaming)

    def make(
        self,
        row: Row,
        number: int,
        text: str,
        answer: str,
        choices: tuple[str, ...] = (),
        category: str = "",
        part: str = "",
        name: Any = None,
    ) -> Question:
        """The question with its picture. Raises DataError where the choices lack the answer, or the image can't be."""
        if choices and not ("A" <= answer <= chr(ord("A") + len(choices) - 1) and len(answer) == 1):
            raise DataError(f"the answer {answer!r} is none of the {len(choices)} choices' letters")
        picture = self.picture(row, number)
        name = self.unique(str(number if name is None else name), number)
        return Question(f"{self.split}-{name}", picture, text, answer, choices, category, self.split, part)

    def picture(self, row: Row, number: int) -> Picture:
        """Where the row's image is to be had. Raises DataError."""
        cell = row[CELL]
        elsewhere = self.places.picture(cell, self.image, row.get("image_sha256"))
        if elsewhere is not None:
            return elsewhere
        if self.cells is None:
            return self.places.kept(cell, self.image)
        return CellPicture(self.cells, number - 1, f"{self.name}: row {number}, column {self.image}")

    def _rows(self, table: Table) -> Iterator[dict[str, Any]]:
        names = table.column_names or list(next(iter(table), {}))
        self.image = next((c for c in self.image_columns if c in names), self.image_columns[0])
        check_columns(self.name, names, (self.image, *self.columns))
        read = [*self.columns, *(c for c in self.extra if c in names)]
        self.cells = table.select_columns([self.image]) if isinstance(table, datasets.Dataset) else None
        if self.cells is None:
            for row in cast(Iterable[Row], table):
                yield {CELL: row[self.image], **{column: row.get(column) for column in read}}
            return
        for i, (row, size) in enumerate(zip(table.select_columns(read), sizes(self.cells))):
            yield {CELL: EMBEDDED if size > LONGEST_PATH else self.cells[i][self.image], **row}
