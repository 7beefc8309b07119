"""Tables of rows: one file, a downloaded repository, a folder of `save_to_disk`, or a repository on the hub.

What is on disk is memory-mapped: a table may be larger than memory. Images in it stay encoded.
"""

import re
from pathlib import Path
from typing import Any

import datasets
from datasets.exceptions import DatasetNotFoundError

from mgpo.data.sources import DataError

Table = datasets.Dataset | datasets.IterableDataset
DEEPEST = 64  # lists and objects in each other in JSON
_STRING, _TOKEN = re.compile(rb'"(?:[^"\\]|\\.)*+"?'), re.compile(rb"[\[\]{}]|null")
AT_ONCE = 8  # rows read and written together: with images in them they are megabytes long each


def open_file(path: Path, streaming: bool = False) -> Table:
    """The rows of a .jsonl, .json, .parquet or .tsv file. Raises DataError."""
    if not path.is_file():
        raise DataError(f"{path}: there is no such file")
    kind = {".jsonl": "json", ".json": "json", ".parquet": "parquet", ".tsv": "csv"}.get(path.suffix)
    if kind is None:
        raise DataError(f"{path}: questions are read from .jsonl, .json, .parquet and .tsv files")
    if kind == "json":
        _check_json(path)
    try:
        how = _tsv(path) if kind == "csv" else {}
        files = {"train": str(path)}
        return _load(kind, None, "train", streaming, data_files=files, **how)
    except Exception as error:  # the readers raise many kinds; each means that the file can't be parsed
        raise DataError(f"{path}: the file can't be read ({_reason(error)})") from None


def open_folder(path: Path, config: str | None, split: str, streaming: bool = False) -> Table:
    """A split of a downloaded hub repository, or of a folder that `save_to_disk` has made. Raises DataError."""
    if not path.is_dir():
        raise DataError(f"{path}: there is no such file or folder")
    if (path / "dataset_dict.json").is_file() or (path / "state.json").is_file():
        return _saved(path, split)
    try:
        return _load(str(path), config, split, streaming)
    except Exception as error:
        raise DataError(f"{path}: the folder can't be read ({_reason(error)})") from None


def open_hub(name: str, config: str | None, split: str, streaming: bool = False) -> Table:
    """A split of a repository on the hub, downloaded as a whole unless it is streamed. Raises DataError."""
    try:
        return _load(name, config, split, streaming)
    except DatasetNotFoundError as error:
        if "gated" in str(error):
            reason = "it is gated: ask for access on its page, then log in with `hf auth login`"
        else:
            reason = "there is no such repository on the hub, or it is private (`hf auth login`)"
        raise DataError(f"{name}: {reason}") from None
    except (ConnectionError, TimeoutError):
        raise DataError(
            f"{name}: the hub can't be reached; download the repository elsewhere (`hf download {name} --repo-type "
            "dataset`) and name its folder in `path`"
        ) from None
    except Exception as error:
        raise DataError(f"{name}: the repository can't be read ({_reason(error)})") from None


def keep_encoded(table: Table) -> Table:
    """The same table, whose columns of images give {"bytes", "path"} instead of decoding."""
    for column, feature in (table.features or {}).items():
        if isinstance(feature, datasets.Image):
            table = table.cast_column(column, datasets.Image(decode=False))
    return table


def _load(name: str, config: str | None, split: str, streaming: bool, **how: Any) -> Table:
    """`load_dataset`, which else holds back up to 1000 rows before it writes them into its cache."""
    return datasets.load_dataset(name, config, split=split, streaming=streaming, writer_batch_size=AT_ONCE, **how)


def _saved(path: Path, split: str) -> datasets.Dataset:
    try:
        saved = datasets.load_from_disk(str(path))
    except Exception as error:
        raise DataError(f"{path}: the folder can't be read ({_reason(error)})") from None
    if isinstance(saved, datasets.Dataset):
        return saved
    if split not in saved:
        raise DataError(f"{path}: there is no split {split!r}; there are {', '.join(map(str, saved))}")
    return saved[split]


def _tsv(path: Path) -> dict[str, Any]:
    """All columns as texts: a choice "None" or "007" is no missing value and no number."""
    with path.open(encoding="utf-8") as lines:
        columns = lines.readline().rstrip("\r\n").split("\t")
    features = datasets.Features({column: datasets.Value("string") for column in columns})
    return {"sep": "\t", "features": features, "keep_default_na": False, "chunksize": AT_ONCE}


def _check_json(path: Path) -> None:
    """Raises DataError for what would end the process in the JSON reader: nesting without end, and null as a row."""
    depth, outer = 0, b""
    with path.open("rb") as lines:
        for number, line in enumerate(lines, start=1):
            depth = 0 if path.suffix == ".jsonl" else depth  # a row stands on a line of its own
            if path.suffix == ".jsonl" and line[:1] == b"{" and line.count(b"[") + line.count(b"{") <= DEEPEST:
                continue  # as nearly all are
            for token in _TOKEN.findall(_STRING.sub(b"", line)):
                if token == b"null" and (depth == 0 or (depth == 1 and outer == b"[")):
                    raise DataError(f"{path}, line {number}: null stands where a row should")
                depth += {b"[": 1, b"{": 1, b"]": -1, b"}": -1}.get(token, 0)
                outer = token if depth == 1 and token in b"[{" else outer
                if depth > DEEPEST:
                    raise DataError(f"{path}, line {number}: lists or objects are nested more than {DEEPEST} deep")


def _reason(error: Exception) -> str:
    """The first line of an error, or of the one it wraps: splits and configurations are listed there."""
    return (str(error.__cause__ or error).strip().splitlines() or ["it is empty"])[0][:200]
