"""Questions from one's own JSONL or Parquet file."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import datasets

from mgpo.answers import LETTERS, choice_letter
from mgpo.data.sources import DataError
from mgpo.images import BadImage, FilePicture, check_image
from mgpo.types import Question

COLUMNS = ("image", "question", "answer", "choices", "category", "id")
BOXES = ("bbox", "box", "boxes", "bboxes", "bbox_2d", "region", "target_bbox", "coordinates", "point", "points", "mask")
SHOWN = 5  # bad rows named in a message


class Files:
    """A file of rows with the columns image, question, answer and, where wanted, choices, category, id.

    `image` is a path relative to `images`. `answer` is the option's letter or its text where there
    are `choices` (a list of texts). Rows that can't be used are left out, counted and named; a row
    that stands twice counts once.

    Args:
        path: A .jsonl, .json or .parquet file.
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
        rows = _read(self.path)
        _check_columns(self.path, rows.column_names, drop_columns)
        self.bad: list[str] = []
        self.ids: set[str] = set()
        self.questions = list(self._questions(rows))
        if not self.questions:
            reasons = "; ".join(self.bad[:SHOWN]) or "it holds no rows"
            raise DataError(f"{self.path}: no row can be used ({reasons})")

    def __len__(self) -> int:
        return len(self.questions)

    def __getitem__(self, index: int) -> Question:
        return self.questions[index]

    def complaint(self) -> str | None:
        """What was left out, in one sentence; None where nothing was."""
        if not self.bad:
            return None
        more = f"; and {len(self.bad) - SHOWN} more" if len(self.bad) > SHOWN else ""
        return f"{self.path}: {len(self.bad)} rows are left out: " + "; ".join(self.bad[:SHOWN]) + more

    def _questions(self, rows: datasets.Dataset) -> Iterator[Question]:
        seen: dict[tuple[str, str, str, tuple[str, ...]], int] = {}
        for number, row in enumerate(rows.to_list(), start=1):
            try:
                question = self._question(row, number)
            except (DataError, BadImage) as error:
                self.bad.append(f"row {number}, {error}")
                continue
            key = (row["image"], question.text, question.answer, question.choices)
            if (first := seen.setdefault(key, number)) != number:
                self.bad.append(f"row {number}, the same as row {first}")
                continue
            yield question

    def _question(self, row: Mapping[str, Any], number: int) -> Question:
        image = self._image(_text(row, "image"))
        text, answer = _text(row, "question"), _text(row, "answer")
        choices = _choices(row.get("choices"))
        if choices:
            letter = choice_letter(answer, choices)
            if letter is None:
                raise DataError(f"column answer: {answer!r} is not among the {len(choices)} choices")
            answer = letter
        name = str(row["id"]) if row.get("id") is not None else f"{self.path.stem}-{number}"
        name = name if name not in self.ids else f"{name}-{number}"  # an id of the image, with several questions
        self.ids.add(name)
        category = str(row["category"]) if row.get("category") is not None else ""
        return Question(name, FilePicture(str(image)), text, answer, choices, category, self.split)

    def _image(self, name: str) -> Path:
        path = self.folder / name
        if not path.resolve().is_relative_to(self.folder.resolve()):
            raise DataError(f"column image: {name!r} leads out of {self.folder}")
        try:
            check_image(path)
        except BadImage as error:
            raise DataError(f"column image: {error}") from None
        return path


def _read(path: Path) -> datasets.Dataset:
    if not path.is_file():
        raise DataError(f"{path}: there is no such file")
    builder = {".jsonl": "json", ".json": "json", ".parquet": "parquet"}.get(path.suffix)
    if builder is None:
        raise DataError(f"{path}: questions are read from .jsonl, .json and .parquet files")
    try:
        if builder == "parquet":
            return datasets.Dataset.from_parquet(str(path))
        return datasets.Dataset.from_json(str(path))
    except Exception as error:  # the readers raise many kinds; each means that the file can't be parsed
        reason = (str(error.__cause__ or error).splitlines() or ["it is empty"])[0][:200]
        raise DataError(f"{path}: the file can't be read ({reason})") from None


def _check_columns(path: Path, columns: Sequence[str], dropped: Sequence[str]) -> None:
    kept = [column for column in columns if column not in dropped]
    if boxes := [column for column in kept if column.lower() in BOXES]:
        raise DataError(
            f"{path}: column {boxes[0]!r} holds places in the image, and this method must learn them from answers "
            f"alone; remove it, or name it in drop_columns: [{', '.join(boxes)}]"
        )
    if missing := [column for column in COLUMNS[:3] if column not in kept]:
        raise DataError(f"{path}: column {missing[0]!r} is missing; the file has {', '.join(columns)}")


def _text(row: Mapping[str, Any], column: str) -> str:
    value = row[column]
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise DataError(f"column {column}: a text is needed, not {value!r}")
    if not str(value).strip():
        raise DataError(f"column {column}: it is empty")
    return str(value).strip()


def _choices(value: Any) -> tuple[str, ...]:
    if value is None or value == []:
        return ()
    if not isinstance(value, list) or not all(isinstance(choice, str) and choice.strip() for choice in value):
        raise DataError("column choices: a list of texts is needed")
    if not 2 <= len(value) <= len(LETTERS):
        raise DataError(f"column choices: {len(value)} choices; 2 to {len(LETTERS)} can be lettered")
    return tuple(value)
