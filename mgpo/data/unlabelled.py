"""Questions to be answered rather than learnt from: pictures, or whatever `Files` reads; answers may be unknown."""

import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Literal

from mgpo.data.base import DataError
from mgpo.data.files import Files
from mgpo.data.remote_images import WebPicture
from mgpo.data.row_source import Row, ending, listed, optional, shown
from mgpo.data.table_source import StoredRows
from mgpo.data.tables import HUB_NAME, KINDS, METADATA, is_saved, kind_of
from mgpo.errors import UserError
from mgpo.images.decoding import FilePicture, Picture
from mgpo.types import Question

SUFFIXES = (".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".bmp", ".tif", ".tiff", ".gif", ".avif", ".jp2")
SUFFIXES += (".j2k", ".jpx", ".mpo", ".pbm", ".pgm", ".pnm", ".ppm", ".tga", ".dib")
SUFFIXES += (".heic", ".heif", ".jxl")  # which can't be opened, and are not passed over in silence


def unlabelled_questions(
    path: str,
    question: str | None = None,
    columns: Mapping[str, str] | None = None,
    images: str | None = None,
    index_base: Literal[0, 1] | None = None,
) -> list[Question]:
    """The questions in a folder or a file, in order. Nothing is decoded: a bad picture shows when it is opened.

    `question` is asked of a picture, or of every picture in a folder, in the order of their paths, which are
    their ids. Else `path` is anything that `Files` reads, with `columns`, `images` and `index_base` as there; answers
    are optional, and `question` stands in where a row has none. Warns of answers that can't be right.

    Raises:
        DataError: If there is nothing to ask, or a row that can't be read; it names the line.
    """
    place = Path(path)
    if place.is_file() and place.suffix.lower() in SUFFIXES:
        if not (question or "").strip():
            raise DataError(f"{ending(path)} is a picture; say with --question what to ask of it")
        return _of_pictures(place.parent, [place.name], str(question))
    if place.is_dir() and not _is_table(place):
        return _of_folder(place, question)
    if not place.exists() and (kind_of(place) is not None or not HUB_NAME.fullmatch(path)):
        raise DataError(f"{ending(path)}: there is no such folder or file")
    if place.is_file() and kind_of(place) is None:
        raise DataError(
            f"{ending(path)}: a picture, a folder, a table ({', '.join(list(KINDS)[1:])}) or a .jsonl file is needed"
        )
    found = UnlabelledFiles(path, question, columns, images, index_base)
    if found.unjudged:
        count = f"{len(found.unjudged)} of {len(found)} answers can't be right and are not judged"
        warnings.warn(f"{ending(path)}: {count}: {listed(found.unjudged)}", stacklevel=2)
    return found.questions


class UnlabelledFiles(Files):
    """Rows whose answers may be unknown, as they are where they can't be told (`unjudged` says which, and why).

    Pictures are not looked at before they are opened, and no row is left out.

    Raises:
        DataError: For the first row that can't be asked.
    """

    needed = ("image",)
    checks = False

    def __init__(
        self,
        path: str,
        question: str | None = None,
        columns: Mapping[str, str] | None = None,
        images: str | None = None,
        index_base: Literal[0, 1] | None = None,
    ) -> None:
        self.asks, self.unjudged = question, list[str]()
        super().__init__(path, images, columns=columns, index_base=index_base)

    def check(self, columns: Sequence[str]) -> None:
        """Look only for columns that are missing: boxes do no harm where nothing is learnt. Raises DataError."""
        StoredRows.check(self, columns)

    def _rows(self, limit: int | None) -> Iterator[tuple[int, Row]]:
        return StoredRows._rows(self, limit)

    def question(self, row: Row, number: int) -> Question:
        """The question of a row, or the one that was handed over where the row has none. Raises DataError."""
        self.place = f"{'line' if '.jsonl' in self.path.name else 'row'} {number}"
        if self.asks is not None and optional(row, self.of["question"]) == "":
            row = {**row, self.of["question"]: self.asks}
        return super().question({self.of["question"]: None, **row}, number)

    def unusable(self, number: int, error: UserError) -> None:
        """Raises DataError, which names the line: no row is left out, because every one is to be answered."""
        raise DataError(f"{ending(self.name)}, {self.place}: {error}") from None

    def _answers(self, row: Row) -> tuple[str, ...]:
        try:
            return () if row.get(self.of["answer"]) in (None, "", []) else super()._answers(row)
        except DataError as error:
            return self._unjudged(error)

    def _truths(self, answers: tuple[str, ...], choices: tuple[str, ...], labels: tuple[str, ...]) -> tuple[str, ...]:
        try:
            return super()._truths(answers, choices, labels)
        except DataError as error:
            return self._unjudged(error) or ("",)

    def _unjudged(self, error: DataError) -> tuple[str, ...]:
        self.unjudged.append(f"{self.place}, {error}")
        return ()

    def _known(self, picture: Picture, column: str) -> str | None:
        return super()._known(picture, column) if isinstance(picture, WebPicture) else None

    def _name(self, row: Row, number: int) -> str:
        value = row.get(self.of["id"])
        given = value.strip() if isinstance(value, str) else optional(row, self.of["id"])
        name = _writable(given or f"{self.path.stem}-{number}")
        if name in self.ids:
            raise DataError(f"the id {shown(name)} stands twice")
        self.ids.add(name)
        return name


def _is_table(folder: Path) -> bool:
    """Whether a folder holds rows of its own: one of `save_to_disk`, images with metadata, or a repository's files."""
    places = [folder, *(path for path in folder.iterdir() if path.is_dir())]
    if is_saved(folder) or any(
        (place / name).is_file() for place in places for name in (*METADATA, "metadata.parquet")
    ):
        return True
    files = [path for path in folder.rglob("*") if path.is_file()]
    return not any(path.suffix.lower() in SUFFIXES for path in files) and any(map(kind_of, files))


def _of_folder(folder: Path, question: str | None) -> list[Question]:
    found = [path.relative_to(folder) for path in folder.rglob("*")]
    shown = [path for path in found if not any(part.startswith(".") for part in path.parts)]
    names = sorted(path.as_posix() for path in shown if path.suffix.lower() in SUFFIXES)
    if not (question or "").strip():
        raise DataError(f"{ending(str(folder))} is a folder of pictures; say with --question what to ask of each")
    if not names:
        raise DataError(f"{ending(str(folder))}: there are no pictures in it ({', '.join(SUFFIXES)})")
    return _of_pictures(folder, names, str(question))


def _of_pictures(folder: Path, names: Sequence[str], question: str) -> list[Question]:
    questions = [Question(_writable(name), FilePicture(str(folder / name)), question, "") for name in names]
    if len({asked.id for asked in questions}) < len(names):
        raise DataError(
            f"{ending(str(folder))}: two file names are the same once they are written as UTF-8; rename one"
        )
    return questions


def _writable(name: str) -> str:
    """A name that UTF-8 can hold, so that it is read back as it was: a file's name may be any bytes, and JSON may
    escape half a pair of surrogates."""
    return name.encode("utf-8", "backslashreplace").decode()
