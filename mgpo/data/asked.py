"""Questions to be answered rather than learnt from: a folder of pictures, or a JSONL file; answers may be unknown."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from mgpo.answers import choice_letter
from mgpo.data.pictures import check_inside
from mgpo.data.rows import check_choices, text_of
from mgpo.data.sources import DataError
from mgpo.images import FilePicture
from mgpo.types import Question

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".gif")


def asked(path: str, question: str | None = None) -> list[Question]:
    """The questions in a folder or a file, in order. Nothing is decoded: a bad picture shows when it is opened.

    In a folder `question` is asked of every picture, in the order of their paths, which are their ids. A
    .jsonl file has the columns image and question and, where wanted, choices, answer, id; `question` stands
    in where a row has none. Images are paths relative to the file.

    Raises:
        DataError: If there is nothing to ask, or a row that can't be read; it names the line.
    """
    place = Path(path)
    if place.is_dir():
        return _of_folder(place, question)
    if not place.is_file():
        raise DataError(f"{path}: there is no such folder or file")
    if place.suffix != ".jsonl":
        raise DataError(f"{path}: a folder of pictures or a .jsonl file is needed")
    return _of_file(place, question)


def _of_folder(folder: Path, question: str | None) -> list[Question]:
    if not (question or "").strip():
        raise DataError(f"{folder} is a folder of pictures; say with --question what to ask of each")
    files = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES)
    if not files:
        raise DataError(f"{folder}: there are no pictures in it ({', '.join(SUFFIXES)})")
    questions = [_writable(Question(name, FilePicture(str(folder / name)), str(question), "")) for name in files]
    if len({asked.id for asked in questions}) < len(files):
        raise DataError(f"{folder}: two file names are the same once they are written as UTF-8; rename one of them")
    return questions


def _of_file(file: Path, question: str | None) -> list[Question]:
    questions: dict[str, Question] = {}
    with file.open(encoding="utf-8", errors="replace") as lines:
        for number, line in enumerate(lines, start=1):
            if not line.strip():
                continue
            try:
                asked = _writable(_of_row(_object(line), number, file, question))
                if asked.id in questions:
                    raise DataError(f"the id {asked.id!r} stands twice")
            except DataError as error:
                raise DataError(f"{file}, line {number}: {error}") from None
            questions[asked.id] = asked
    if not questions:
        raise DataError(f"{file}: it holds no rows")
    return list(questions.values())


def _writable(question: Question) -> Question:
    """With an id that UTF-8 can hold, so that it is read back as it was: a file's name may be any bytes, and JSON may
    escape half a pair of surrogates."""
    return replace(question, id=question.id.encode("utf-8", "backslashreplace").decode())


def _object(line: str) -> dict[str, Any]:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError):
        row = None
    if not isinstance(row, dict):
        raise DataError("this is no JSON object")
    return row


def _of_row(row: dict[str, Any], number: int, file: Path, question: str | None) -> Question:
    row = {"image": None, "question": question, **{name: value for name, value in row.items() if value is not None}}
    image = text_of(row, "image")
    check_inside(file.parent, image, "image")
    choices = _choices(row.get("choices"))
    answer = text_of(row, "answer") if "answer" in row else ""
    if answer and choices:
        letter = choice_letter(answer, choices)
        if letter is None:
            raise DataError(f"column answer: {answer!r} is not among the {len(choices)} choices")
        answer = letter
    name = text_of(row, "id") if "id" in row else f"{file.stem}-{number}"
    return Question(name, FilePicture(str(file.parent / image)), text_of(row, "question"), answer, choices)


def _choices(value: Any) -> tuple[str, ...]:
    if not value:
        return ()
    if not isinstance(value, list):
        raise DataError("column choices: a list of texts is needed")
    return check_choices("choices", value)
