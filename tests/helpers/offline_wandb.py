"""What W&B has kept on disk of a run: the records of its .wandb files, which are logs in LevelDB's format."""

import json
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import wandb
from wandb.proto.wandb_internal_pb2 import Record

BLOCK, HEADER = 32768, 7  # bytes; a file and each record in it have a header of the same length
FIRST, LAST = (1, 2), (1, 4)  # kinds of pieces with which a record begins, and ends


def records(path: Path) -> Iterator[Any]:
    """All records of a file, in order."""
    data, place, whole = path.read_bytes(), HEADER, b""
    while place + HEADER <= len(data):
        if (left := BLOCK - place % BLOCK) < HEADER:
            place += left
            continue
        _, size, kind = struct.unpack("<IHB", data[place : place + HEADER])
        whole = b"" if kind in FIRST else whole  # one that was not ended is none
        whole += data[place + HEADER : place + HEADER + size]
        place += HEADER + size
        if kind in LAST:
            record = Record()
            record.ParseFromString(whole)
            yield record


def runs(folder: Path) -> list[dict[str, Any]]:
    """By file, in the order of time: the run's id, its name, its configuration and the rows of its history."""
    wandb.teardown()  # `finish` does not wait until W&B's process has written its files; the end of that process does
    found = []
    for path in sorted(folder.glob("wandb/offline-run-*/run-*.wandb")):
        run: dict[str, Any] = {"config": {}, "rows": []}
        for record in records(path):
            if record.WhichOneof("record_type") == "run":
                run.update(id=record.run.run_id, name=record.run.display_name)
                run["config"] |= _values(record.run.config.update)
            elif record.WhichOneof("record_type") == "config":
                run["config"] |= _values(record.config.update)
            elif record.WhichOneof("record_type") == "history":
                run["rows"].append(_values(record.history.item))
        found.append(run)
    return found


def _values(items: Any) -> dict[str, Any]:
    return {"/".join(item.nested_key) or item.key: json.loads(item.value_json) for item in items}
