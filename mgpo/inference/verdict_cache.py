"""What a judge said, kept so that the same answer is never asked about twice: in memory, and in a file if wanted."""

import hashlib
import json
import re
from collections.abc import Sequence
from pathlib import Path
from threading import Lock
from typing import Any

from mgpo.errors import UserError
from mgpo.utils.atomic_files import writing

_ROW = re.compile(rb'\{"key": "([0-9a-f]{64})", "right": (true|false)\}')
START = b'{"key": "'
SHORTEST_ROW, LONGEST_ROW = 90, 100  # bytes
ADVICE = "name another file of verdicts, or none"


def key_of(*parts: Any) -> str:
    """A hash of anything that JSON can hold."""
    text = json.dumps(parts, sort_keys=True, default=repr)
    return hashlib.sha256(text.encode("utf-8", "replace")).hexdigest()


class VerdictCache:
    """Verdicts by key. Several threads may use one, and several processes one file, to which rows are only added.

    Args:
        path: The JSONL file, whose folder is made; none keeps them in memory alone.
        largest: Verdicts in memory, where the oldest makes room, and rows in the file, which takes no more then.

    Raises:
        UserError: If the file holds something else, or can't be written.
    """

    def __init__(self, path: Path | None, largest: int) -> None:
        self.path, self.largest, self.lock = path, largest, Lock()
        self.verdicts: dict[str, bool] = {}
        self.room = largest
        if path is not None:
            self._read(path)

    def __len__(self) -> int:
        return len(self.verdicts)

    def get(self, key: str) -> bool | None:
        """The verdict, if it is known."""
        with self.lock:
            return self.verdicts.get(key)

    def add(self, new: Sequence[tuple[str, bool]]) -> None:
        """Keep verdicts, on the disk too where there is a file. Raises UserError where it can't be written."""
        with self.lock:
            for key, right in new:
                self.verdicts[key] = right
                if len(self.verdicts) > self.largest:
                    del self.verdicts[next(iter(self.verdicts))]
            rows = new[: self.room]
            if self.path is not None and rows:
                self.room -= len(rows)
                with writing(self.path, ADVICE), self.path.open("ab") as file:
                    file.write(b"".join(b'{"key": "%s", "right": %s}\n' % row for row in map(_as_bytes, rows)))

    def _read(self, path: Path) -> None:
        """Rows that a kill tore are left out; what begins with none at all is somebody's file of something else."""
        with writing(path, ADVICE):
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("ab+") as file:  # made here, so that a mistake shows before anything is asked
                file.seek(0)
                lines = file.read(self.largest * LONGEST_ROW).split(b"\n")
                if lines[-1]:
                    file.write(b"\n")  # what is added must not go on with a row that a kill tore
        rows = [_ROW.fullmatch(line) for line in lines]
        torn = lines[0] and len(lines[0]) <= SHORTEST_ROW and START.startswith(lines[0][: len(START)])
        if rows[0] is None and not torn and lines != [b""]:
            raise UserError(f"{path} is no file of verdicts; {ADVICE}")
        known = [row for row in rows if row is not None][: self.largest]
        self.verdicts = {row[1].decode(): row[2] == b"true" for row in known}
        self.room = max(0, self.largest - len(lines) + 1)


def _as_bytes(row: tuple[str, bool]) -> tuple[bytes, bytes]:
    key, right = row
    return key.encode(), b"true" if right else b"false"
