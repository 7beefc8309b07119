"""What benchmarks share: opening their rows, from the disk or the hub, and their pictures, in the rows or elsewhere."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from mgpo.data.base import DataError
from mgpo.data.benchmarks.harness import Rule
from mgpo.data.image_columns import CACHE, Places
from mgpo.data.row_source import Row, shown
from mgpo.data.table_source import StoredRows
from mgpo.data.tables import Table, open_files, open_folder, open_hub
from mgpo.metrics.record import Record
from mgpo.metrics.score import Score, accuracy
from mgpo.types import Question

PAPER = "arXiv 2507.05920"


class Benchmark(StoredRows):
    """A benchmark from a local copy (`path`) or, where there is none, from the hub.

    Images may be encoded in the rows (bytes, or base64 text), or be paths or http(s) addresses. What lies in
    a local table is read from there when a picture is loaded, so a copy may be larger than memory. A
    streamed table is passed through once; its images are written into the cache.

    Args:
        path: A downloaded repository, a folder of `save_to_disk`, or one .parquet, .jsonl, .csv or .tsv file.
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
    SIZE: ClassVar[int | None] = None  # questions that are published in its split
    score: ClassVar[Callable[[Sequence[Record]], Score]] = staticmethod(accuracy)  # of its records
    scored_as: ClassVar[str] = ""  # the score's name in benchmarks.json, where it is not the class's
    harnesses: ClassVar[Mapping[str, Rule]] = {}  # by name, how others read its replies
    title: str = ""  # of its column in the table of published figures
    published: ClassVar[Mapping[str, float]] = {}  # figures in that column, per cent, by the name of their row …
    published_in: ClassVar[str] = ""  # … and where they stand

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
        table = self.open(path, hub, config, hub_split, streaming)
        places = Places(Path(images) if images else table.folder or Path("."), Path(cache), private)
        super().__init__(table, path or str(hub), places, limit)
        whole = self.SIZE if (hub, config, hub_split) == (self.HUB, self.CONFIG, self.HUB_SPLIT) else None
        self.total = max(self.total, whole or 0)

    def open(self, path: str | None, hub: str | None, config: str | None, split: str, streaming: bool) -> Table:
        """The table; a benchmark that is published in another form than rows overrides this."""
        if path is None:
            return open_hub(str(hub), config, split, streaming)
        if Path(path).is_dir():
            return open_folder(Path(path), config, split, streaming)
        return open_files([Path(path)], streaming)

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
        accepted: tuple[str, ...] = (),
    ) -> Question:
        """The question with its pictures. Raises DataError where the choices lack the answer, or the image can't be."""
        if choices and not ("A" <= answer <= chr(ord("A") + len(choices) - 1) and len(answer) == 1):
            raise DataError(f"the answer {shown(answer)} is none of the {len(choices)} choices' letters")
        picture, *others = self.pictures(row, number)
        name = f"{self.split}-{self.unique(str(number if name is None else name), number)}"
        return Question(
            name, picture, text, answer, choices, category, self.split, part, accepted, others=tuple(others)
        )

    @staticmethod
    def right(record: Record) -> bool:
        """Whether the score takes an answer for right; by default where the reward does."""
        return record.right
