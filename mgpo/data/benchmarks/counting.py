"""Counting benchmarks, Pixmo-Count and FSC-147: how many things of a kind a picture shows."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import datasets

from mgpo.answers import find_number
from mgpo.data.arrow_rows import ArrowTable
from mgpo.data.base import DataError
from mgpo.data.benchmarks.base import PAPER, Benchmark
from mgpo.data.row_source import Row, shown, text_of
from mgpo.data.tables import Table
from mgpo.metrics.record import Record
from mgpo.metrics.score import Score, share
from mgpo.types import Question
from mgpo.utils.atomic_files import parse_json

QUESTION = "How many {} are there in the picture? Answer with a number."
POINTS = "annotation_FSC147_384.json"
SPLITS = "Train_Test_Val_FSC_147.json"
CLASSES = "ImageClasses_FSC147.txt"
IMAGES = "images_384_VarV2"


def count_of(row: Row) -> str:
    """The column `count`. Raises DataError where it is no whole number from 0."""
    text = text_of(row, "count")
    if not text.isdecimal():
        raise DataError(f"column count: a whole number is needed, not {shown(text)}")
    return text


def counting(records: Sequence[Record]) -> Score:
    """Share of exact counts; the mean absolute error is over the answers that hold one number."""
    given = [(find_number(r.answer) if r.answer is not None else None, float(r.truth)) for r in records]
    errors = [abs(number - truth) for number, truth in given if number is not None]
    exact = share(number == truth for number, truth in given)
    parts = {"mean absolute error": share(errors), "a number given": share(n is not None for n, _ in given)}
    return Score(len(records), exact, parts)


class Counting(Benchmark):
    """How many things of the row's label are in its picture; scored by exact counts."""

    columns = ("count", "label")
    score = staticmethod(counting)
    scored_as = "counting"
    published_in = PAPER

    def question(self, row: Row, number: int) -> Question:
        """Asks how many things of the row's label there are."""
        return self.make(row, number, QUESTION.format(text_of(row, "label")), count_of(row))


class PixmoCount(Counting):
    """Pixmo-Count (arXiv 2409.17146): pictures behind addresses, checked by the sha256 of their files.

    The points are never read.
    """

    HUB = "allenai/pixmo-count"
    SPLIT = "pixmo_count"
    extra = ("image_sha256",)
    image_columns = ("image_url", "image")
    title = "Pixmo-Count"
    published: ClassVar = {
        "counting: Qwen2.5-VL-7B": 13.0,
        "counting: + SFT": 24.1,
        "counting: + MGPO, accuracy reward": 35.0,
        "counting: + MGPO, accuracy and point reward": 34.9,
    }


class FSC147(Counting):
    """FSC-147 (arXiv 2104.08391): the published folder, or a table with image, count and label.

    Of the folder's points only the number is kept.
    """

    SPLIT = "fsc147"
    title = "FSC-147"
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
