"""The file of predictions: rows are appended and never lost, however often the process that writes them is killed."""

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mgpo.errors import UserError

ORIGIN = ".origin.json"


class Predictions:
    """A JSONL file, one row a question, with a file beside it that says what the rows came from.

    Opening it repairs it: of a row that a kill tore, nothing is kept.

    Args:
        path: The file; its folder is made.
        origin: What the rows come from, by name. A file that was begun with anything else is not gone on with.

    Raises:
        UserError: If the file came from something else, or holds what is no row.
    """

    def __init__(self, path: Path, origin: Mapping[str, Any]) -> None:
        self.path, self.beside = path, path.with_name(path.name + ORIGIN)
        self.origin = {name: fingerprint(value) for name, value in origin.items()}
        if path.exists() or self.beside.exists():
            self._check_origin()
        else:
            self._write_origin()
        self.rows = self._repair()

    @property
    def done(self) -> set[str]:
        """The ids of the questions whose rows are written."""
        return {row["id"] for row in self.rows}

    def append(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Write rows and wait until they are on the disk."""
        text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        with self.path.open("ab") as file:
            file.write(text.encode("utf-8", "replace"))
            file.flush()
            os.fsync(file.fileno())
        self.rows += rows

    def _check_origin(self) -> None:
        try:
            before = json.loads(self.beside.read_text())
        except (OSError, ValueError):
            raise UserError(
                f"{self.path} exists, but {self.beside.name}, which says what it came from, can't be read; "
                "name another --output"
            ) from None
        if changed := [name for name, value in self.origin.items() if before.get(name) != value]:
            raise UserError(
                f"{self.path} was begun with another {', another '.join(changed)}; name another --output, or delete "
                f"it and {self.beside.name}"
            )

    def _write_origin(self) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        fresh = self.beside.with_name(self.beside.name + ".new")
        with fresh.open("w") as file:
            json.dump(self.origin, file, indent=1)
            file.flush()
            os.fsync(file.fileno())
        os.replace(fresh, self.beside)

    def _repair(self) -> list[Mapping[str, Any]]:
        """The whole rows of the file; what is behind the last of them is cut off."""
        raw = self.path.read_bytes() if self.path.exists() else b""
        lines = raw.splitlines(keepends=True)
        rows: list[Mapping[str, Any]] = []
        for number, line in enumerate(lines, start=1):
            row = _row(line)
            if row is None and number < len(lines):
                raise UserError(f"{self.path}, line {number}: this is no row of predictions; name another --output")
            if row is None:
                with self.path.open("r+b") as file:
                    file.truncate(len(raw) - len(line))
                    os.fsync(file.fileno())
            else:
                rows.append(row)
        return rows


def fingerprint(value: Any) -> str:
    """Of anything that JSON can hold; what it can't enters by its repr."""
    text = json.dumps(value, sort_keys=True, default=repr)
    return hashlib.sha256(text.encode("utf-8", "replace")).hexdigest()[:16]


def _row(line: bytes) -> Mapping[str, Any] | None:
    """The row in a line; None where the line is torn or no row."""
    try:
        row = json.loads(line) if line.endswith(b"\n") else None
    except ValueError:
        return None
    return row if isinstance(row, dict) and isinstance(row.get("id"), str) else None
