"""Questions from one's own JSONL, Parquet or TSV file."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, cast

from mgpo.answers import choice_letter
from mgpo.data.pictures import inside
from mgpo.data.rows import Row, RowSource, check_choices, check_columns, text_of
from mgpo.data.sources import DataError
from mgpo.data.tables import open_file
from mgpo.images import FilePicture
from mgpo.types import Question

COLUMNS = ("image", "question", "answer", "choices", "category", "id")
BOXES = ("bbox", "box", "boxes", "bboxes", "bbox_2d", "region", "target_bbox", "coordinates", "point", "points", "mask")


class Files(RowSource):
    """A file of rows with the columns image, question, answer and, where wanted, choices, category, id.

    `image` is a path relative to `images`. `answer` is the option's letter or its text where there
    are `choices` (a list of texts). Rows that can't be used are left out, counted and named; a row
    that stands twice counts once.

    Args:
        path: A .jsonl, .json, .parquet or .tsv file.
        images: The folder of the images; by default that of the file.
        split: The name under which results are reported.
        drop_columns: Columns to ignore. A file with boxes is refused unless they are named here.

    Raises:
        DataError: If the file, its columns, or all of its rows can't be used.
    """

    def __init__(
        self, path: str, images: str | None = None, split: str = "files", drop_columns: Sequence[str] = ()
    ) -> None:
        self.path, self.split = Path(path), split
        self.folder = Path(images) if images else self.path.parent
        self.seen: dict[tuple[str, str, str, tuple[str, ...]], int] = {}
        rows = open_file(self.path)
        _refuse_boxes(self.path, [column for column in rows.column_names or () if column not in drop_columns])
        super().__init__(str(self.path), cast(Iterable[Row], rows))

    def question(self, row: Row, number: int) -> Question:
        image = inside(self.folder, text_of(row, "image"), "image")
        text, answer = text_of(row, "question"), text_of(row, "answer")
        choices = _choices(row.get("choices"))
        if choices:
            letter = choice_letter(answer, choices)
            if letter is None:
                raise DataError(f"column answer: {answer!r} is not among the {len(choices)} choices")
            answer = letter
        key = (row["image"], text, answer, choices)
        if (first := self.seen.setdefault(key, number)) != number:
            raise DataError(f"the same as row {first}")
        name = str(row["id"]) if row.get("id") is not None else f"{self.path.stem}-{number}"
        category = str(row["category"]) if row.get("category") is not None else ""
        name = self.unique(name, number)
        return Question(name, FilePicture(str(image)), text, answer, choices, category, self.split)


def _refuse_boxes(path: Path, columns: Sequence[str]) -> None:
    if boxes := [column for column in columns if column.lower() in BOXES]:
        raise DataError(
            f"{path}: column {boxes[0]!r} holds places in the image, and this method must learn them from answers "
            f"alone; remove it, or name it in drop_columns: [{', '.join(boxes)}]"
        )
    check_columns(str(path), columns, COLUMNS[:3])


def _choices(value: Any) -> tuple[str, ...]:
    if value is None or value == []:
        return ()
    if not isinstance(value, list):
        raise DataError("column choices: a list of texts is needed")
    return check_choices("choices", value)
