"""Questions from one's own data: a file, a folder, or a repository on the hub."""

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any, Literal

from mgpo.answers import LETTERS, normalise
from mgpo.answers.options import named_by_text
from mgpo.data.base import DataError
from mgpo.data.image_columns import CELL, CellPicture, LinePicture, Places, encoded
from mgpo.data.image_marks import without_marks
from mgpo.data.option_columns import choices_of, find_choices, has_letters, letter_of, list_in
from mgpo.data.place_columns import REFUSED, Annotations, is_mask, refuse
from mgpo.data.remote_images import WebPicture
from mgpo.data.row_source import Row, ending, optional, shown, text, text_of
from mgpo.data.table_source import StoredRows
from mgpo.data.tables import open_source
from mgpo.images.decoding import Picture, check_data
from mgpo.types import Question

COLUMNS = ("image", "question", "answer", "choices", "category", "id")
IMAGES = ("image", "images", "file_name", "file_names")  # the first of these that a row has, where none is named


class Files(StoredRows):
    """Rows with the columns image, question, answer and, where wanted, choices, category, id; no others are read.

    `image` is a path relative to `images`, or the picture itself (encoded bytes, base64), or a list of up to 32 of
    these; `images` and `file_name` stand in for it. `choices` is a list, an object ({"A": "red", …}) or a text of
    either; where there are none, those that stand behind the question as "(A) red (B) blue" are taken. `answer` is the
    choice's letter, label, text or, with `index_base`, number; without choices it may be a list, of which any is right.
    Rows that can't be used are left out, counted and named; a row that stands twice counts once.

    Args:
        path: A .jsonl, .json, .csv, .tsv or .parquet file, plain or gzipped; a folder of `save_to_disk`, of images with
            a metadata.jsonl or .csv, or a downloaded repository; or a repository's name on the hub.
        images: The folder of the images; by default where `path` is.
        split: The name under which results are reported.
        drop_columns: Columns to ignore. Data with boxes are refused unless they are named here.
        columns: What columns are called in the data, such as {question: problem}.
        index_base: 0 or 1, the first choice's number, where answers are numbers that count choices.
        config: A repository's configuration.
        hub_split: A repository's or folder's split; by default train, or the only one.

    Raises:
        DataError: If the data, their columns, or all of their rows can't be used.
    """

    needed: Sequence[str] = COLUMNS[:3]
    remedy = "; if it has another name there, say which with columns: {{{column}: …}}"
    checks: bool = True  # whether pictures can be opened, before any is asked about

    def __init__(
        self,
        path: str,
        images: str | None = None,
        split: str = "files",
        drop_columns: Sequence[str] = (),
        columns: Mapping[str, str] | None = None,
        index_base: Literal[0, 1] | None = None,
        config: str | None = None,
        hub_split: str | None = None,
    ) -> None:
        self.path, self.split, self.index_base = Path(path), split, index_base
        self.drop_columns, self.named = set(drop_columns), dict(columns or {})
        if unknown := [name for name in self.named if name not in COLUMNS]:
            raise DataError(f"columns: {unknown[0]!r} is none of {', '.join(COLUMNS)}")
        self.of = {name: self.named.get(name, name) for name in COLUMNS}
        self.image_columns = (self.named["image"],) if "image" in self.named else IMAGES
        self.columns = tuple(self.of[name] for name in COLUMNS[1:] if name in self.needed or name in self.named)
        self.index_column = self.named.get("id", "index")
        self.seen: dict[tuple[Any, ...], int] = {}
        self.annotations, self.said = Annotations(), Counter[str]()
        if images is not None and not Path(images).is_dir():
            raise DataError(f"images: there is no folder {ending(images)}; the working folder is {Path.cwd()}")
        table = open_source(path, config, hub_split)
        places = Places(Path(images) if images else table.folder or Path("."), checked=self.checks)
        super().__init__(table, path, places)
        if self.places.moved:
            self.notes.append(
                f"{len(self.places.moved)} pictures had paths of another machine, and are known by the end of these"
            )
        self.notes += [sentence.format(count) for sentence, count in self.said.items()]

    def wanted(self, column: str) -> bool:
        """Whether a column is read with the row: all that are not dropped, but for those of images."""
        return column not in self.drop_columns and column not in self.image_columns

    def check(self, columns: Sequence[str]) -> None:
        """Look at the columns that there are.

        Raises:
            DataError: If one is missing, or holds boxes or masks and is not dropped.
        """
        others = [name for name in columns if self.wanted(name) and name not in self.of.values()]
        masks = set(filter(is_mask, self.table.pictures))
        refuse(self.name, {name: name for name in others if name.lower() in REFUSED or name in masks})
        super().check(columns)

    def _rows(self, limit: int | None) -> Iterator[tuple[int, Row]]:
        read = {*self.of.values(), self.index_column, CELL}
        for number, row in super()._rows(limit):
            try:
                self.annotations.look({name: value for name, value in row.items() if name not in read})
            except DataError as error:
                raise DataError(f"{ending(self.name)}, row {number}: {error}") from None
            refuse(self.name, self.annotations.named)
            yield number, row
        refuse(self.name, self.annotations.found())

    def question(self, row: Row, number: int) -> Question:
        """The question of a row, counted from 1.

        Raises:
            DataError: For a row that can't be used, and for one that says the same as an earlier one.
            BadImage: For a picture that can't be read.
        """
        words, answers = self._words(row), self._answers(row)
        words, choices, labels = self._choices(row, words, answers)
        truths = self._truths(answers, choices, labels)
        picture, *others = pictures = self.pictures(row, number)
        known = [self._known(picture, cell.column) for picture, cell in zip(pictures, row[CELL])]
        if None not in known and (first := self.seen.setdefault((*known, words, truths, choices), number)) != number:
            raise DataError(f"the same as row {first}")
        name, category = self._name(row, number), optional(row, self.of["category"])
        return Question(
            name, picture, words, truths[0], choices, category, self.split, accepted=truths[1:], others=tuple(others)
        )

    def _words(self, row: Row) -> str:
        """The question, without marks of where the images would be."""
        column = self.of["question"]
        words = text_of(row, column)
        plain = without_marks(words, len(row[CELL]))
        if plain != words:
            self.said["{} rows had <image> in their question, which was taken out, or became its picture's number"] += 1
        return text(plain, column)

    def _answers(self, row: Row) -> tuple[str, ...]:
        """The texts that are right, each once: one, a list of them, or a text of a list, as cells of a CSV file are."""
        column = self.of["answer"]
        value = list_in(row[column]) or row[column]
        if not isinstance(value, list):
            return (text(value, column),)
        if not any(isinstance(answer, str) for answer in value):
            raise DataError(f"column {column}: texts are needed, not {shown(value)}")
        return tuple(dict.fromkeys(text(answer, column) for answer in value))

    def _choices(self, row: Row, words: str, answers: tuple[str, ...]) -> tuple[str, tuple[str, ...], tuple[str, ...]]:
        """The question without choices, these, and their labels."""
        column = self.of["choices"]
        choices, labels = choices_of(column, row.get(column))
        found = find_choices(words)
        if found is None or not found[0]:
            self._say_unsplit(words, choices, answers)
            return words, choices, labels
        same = [*map(normalise, choices)] == [*map(normalise, found[1])]
        letters = tuple(LETTERS[: len(found[1])])
        fits = not choices and all(letter_of(answer, found[1], letters, self.index_base) for answer in answers)
        if same or fits:
            self.said["{} rows had their choices in the question, which were taken out and are shown as choices"] += 1
            return found[0], choices or found[1], labels or letters
        self._say_unsplit(words, choices, answers)
        return words, choices, labels

    def _say_unsplit(self, words: str, choices: tuple[str, ...], answers: tuple[str, ...]) -> None:
        if not choices and any(re.fullmatch(r"\(?[A-Z]\)?[.:]?", answer) for answer in answers) and has_letters(words):
            self.said[
                "{} rows have a letter as answer but no choices, and those in their text can't be told apart"
            ] += 1

    def _truths(self, answers: tuple[str, ...], choices: tuple[str, ...], labels: tuple[str, ...]) -> tuple[str, ...]:
        """The right choice's letter, or the texts that are right."""
        if not choices:
            return answers or ("",)
        column, letters = self.of["answer"], set()
        for answer in answers:
            letter = letter_of(answer, choices, labels, self.index_base)
            if letter is None:
                counts = self.index_base is None and answer.isdecimal()
                hint = "; if it counts them, say from 0 or 1 with index_base" if counts else ""
                of = f"the {len(choices)} choices of column {self.of['choices']}"
                if named_by_text(answer, choices):
                    raise DataError(
                        f"column {column}: {shown(answer)} is the place of one and the text of another of {of}; "
                        'give these as an object of letters, such as {"A": "red", "B": "blue"}'
                    )
                raise DataError(f"column {column}: {shown(answer)} is not among {of}{hint}")
            letters.add(letter)
        if len(letters) > 1:
            raise DataError(f"column {column}: {len(letters)} choices are right; questions with one are asked")
        return tuple(letters) or ("",)

    def _known(self, picture: Picture, column: str) -> str | None:
        """What a picture is known by, for two rows may have the same; None where that is not found out."""
        if isinstance(picture, WebPicture):
            reason = "is an address, and pictures are not fetched here: download it, and name the file"
            raise DataError(f"column {column}: {shown(picture.url)} {reason}")
        if isinstance(picture, CellPicture | LinePicture):
            data = encoded(picture.cell(), f"column {column}")
            check_data(data, f"column {column}")
            return sha256(data).hexdigest()
        return getattr(picture, "path", None)

    def _name(self, row: Row, number: int) -> str:
        return self.unique(optional(row, self.of["id"]) or f"{self.path.stem}-{number}", number)
