"""The file of predictions: rows are appended and never lost, however often the process that writes them is killed."""

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mgpo.errors import UserError
from mgpo.utils.atomic_files import check_output, parse_json, replaced, writing

ORIGIN, LOCK = ".origin.json", ".lock"
ADVICE = "what was written before is kept; make room or name another --output, then start again"


class Predictions:
    """A JSONL file, one row a question, with a file beside it that says what the rows came from.

    Opening it repairs it: of a row that a kill tore, nothing is kept, and rows with an error are taken out, so that
    their questions are asked again.

    Args:
        path: The file; its folder is made.
        origin: What the rows come from, by name. A file of answers that came from anything else is not gone on with.

    Raises:
        UserError: If the file came from something else, holds what is no row, or can't be written.
    """

    def __init__(self, path: Path, origin: Mapping[str, Any]) -> None:
        check_output(path)
        self.path, self.beside = path, path.with_name(path.name + ORIGIN)
        self.origin = {name: fingerprint(value) for name, value in origin.items()}
        changed = self._changes() if path.exists() or self.beside.exists() else []
        lines, self.rows = self._answers()
        if changed and self.rows:
            raise UserError(
                f"{path} was begun with another {', another '.join(changed)}; name another --output, or delete it and "
                f"{self.beside.name}"
            )
        if changed or not self.beside.exists():
            self._write_origin()
        if len(self.rows) < lines:
            self._rewrite(self.rows)

    @property
    def done(self) -> set[str]:
        """The ids of the questions whose rows are written."""
        return {row["id"] for row in self.rows}

    def append(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Write rows and wait until they are on the disk."""
        with writing(self.path, ADVICE), self.path.open("ab") as file:
            file.write(_lines(rows))
            file.flush()
            os.fsync(file.fileno())
        self.rows += rows

    def put_in_order(self, ids: Sequence[str]) -> None:
        """Rows stand behind others where their questions were asked again; put them into the order of these ids."""
        place = {name: number for number, name in enumerate(ids)}
        ordered = sorted(self.rows, key=lambda row: place.get(row["id"], len(place)))
        if ordered != self.rows:
            self._rewrite(ordered)

    def _rewrite(self, rows: list[Mapping[str, Any]]) -> None:
        with replaced(self.path, lasting=True, advice=ADVICE) as unfinished:
            unfinished.write_bytes(_lines(rows))
        self.rows = rows

    def _changes(self) -> list[str]:
        """What the file's rows come from that is not what they are to come from, by name."""
        try:
            before = dict(parse_json(self.beside.read_bytes()))
        except (OSError, ValueError, TypeError):
            raise UserError(
                f"{self.path} exists, but {self.beside.name}, which says what it came from, can't be read; "
                "name another --output"
            ) from None
        return [name for name, value in self.origin.items() if before.get(name) != value]

    def _write_origin(self) -> None:
        with replaced(self.beside, lasting=True, advice=ADVICE) as unfinished:
            unfinished.write_text(json.dumps(self.origin, indent=1), encoding="utf-8")

    def _answers(self) -> tuple[int, list[Mapping[str, Any]]]:
        """How many lines the file has, and its whole rows: of each question the first that is an answer."""
        raw = self.path.read_bytes() if self.path.exists() else b""
        lines = raw.splitlines(keepends=True)
        rows = [_row(line) for line in lines]
        if None in rows[:-1]:
            number = rows.index(None) + 1
            raise UserError(f"{self.path}, line {number}: this is no row of predictions; name another --output")
        answered = [row for row in rows if row is not None and "error" not in row]
        return len(lines), [*{row["id"]: row for row in reversed(answered)}.values()][::-1]


def fingerprint(value: Any) -> str:
    """A short hash of anything that JSON can hold; what it can't hold counts by its repr."""
    text = json.dumps(value, sort_keys=True, default=repr)
    return hashlib.sha256(text.encode("utf-8", "replace")).hexdigest()[:16]


def _lines(rows: Sequence[Mapping[str, Any]]) -> bytes:
    text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    return text.encode("utf-8", "replace")


def _row(line: bytes) -> Mapping[str, Any] | None:
    """The row in a line; None where the line is torn or no row."""
    try:
        row = parse_json(line) if line.endswith(b"\n") else None
    except ValueError:
        return None
    return row if isinstance(row, dict) and isinstance(row.get("id"), str) else None
