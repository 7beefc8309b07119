"""FSC-147 (arXiv 2104.08391): how many things of a kind a picture shows."""

from pathlib import Path
from typing import Any, ClassVar

import datasets

from mgpo.data.arrow_rows import ArrowTable
from mgpo.data.base import DataError
from mgpo.data.benchmarks.base import PAPER, Benchmark
from mgpo.data.benchmarks.counting import QUESTION, count_of, counting
from mgpo.data.row_source import Row, text_of
from mgpo.data.tables import Table
from mgpo.types import Question
from mgpo.utils.atomic_files import parse_json

POINTS = "annotation_FSC147_384.json"
SPLITS = "Train_Test_Val_FSC_147.json"
CLASSES = "ImageClasses_FSC147.txt"
IMAGES = "images_384_VarV2"


class FSC147(Benchmark):
    """The published folder, of whose points only the number is kept, or a table with image, count and label."""

    SPLIT = "fsc147"
    columns = ("count", "label")
    score = staticmethod(counting)
    scored_as = "counting"
    title = "FSC-147"
    published_in = PAPER
    published: ClassVar = {
        "counting: Qwen2.5-VL-7B": 59.9,
        "counting: + SFT": 72.7,
        "counting: + MGPO, accuracy reward": 81.0,
        "counting: + MGPO, accuracy and point reward": 81.9,
    }

    def open(self, path: str | None, hub: str | None, config: str | None, split: str, streaming: bool) -> Table:
        """The published folder as a table, where `path` is such; else any table, as other benchmarks open it."""
        if path and (Path(path) / POINTS).is_file():
            return ArrowTable(published(Path(path), split), path, Path(path))
        return super().open(path, hub, config, split, streaming)

    def question(self, row: Row, number: int) -> Question:
        """Asks how many things of the row's label there are."""
        return self.make(row, number, QUESTION.format(text_of(row, "label")), count_of(row))


def published(folder: Path, split: str) -> datasets.Dataset:
    """A split (train, val, test) of the folder as its authors publish it, as a table. Raises DataError."""
    try:
        splits: dict[str, Any] = parse_json((folder / SPLITS).read_bytes())
        points: dict[str, Any] = parse_json((folder / POINTS).read_bytes())
        lines = (folder / CLASSES).read_text("utf-8").splitlines()
        labels = dict(line.split("\t", 1) for line in lines if line.strip())
        if split not in splits:
            raise DataError(f"{folder}: there is no split {split!r}; there are {', '.join(splits)}")
        return datasets.Dataset.from_list(
            [
                {"image": f"{IMAGES}/{name}", "count": len(points[name]["points"]), "label": labels[name].strip()}
                for name in splits[split]
            ]
        )
    except (OSError, ValueError, KeyError, TypeError) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(f"{folder}: {POINTS}, {SPLITS} and {CLASSES} do not fit together ({error!r})") from None
