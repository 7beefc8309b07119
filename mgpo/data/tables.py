"""Tables of rows: files, a downloaded repository, a folder of `save_to_disk`, or a repository on the hub.

JSON is read as it stands. Everything else `datasets` puts into memory-mapped tables, which may be larger than memory.
"""

import csv
import gzip
import re
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import datasets.config
from datasets.exceptions import DatasetGenerationError, DatasetNotFoundError
from pandas.errors import ParserWarning

from mgpo.data.arrow_rows import ArrowTable
from mgpo.data.base import DataError
from mgpo.data.json_rows import JsonTable
from mgpo.data.row_source import ending
from mgpo.errors import first_line

Table = ArrowTable | JsonTable
KINDS = {".jsonl": "json", ".json": "json", ".parquet": "parquet", ".csv": "csv", ".tsv": "csv", ".ndjson": "json"}
METADATA = ("metadata.jsonl", "metadata.csv")  # of a folder of images
NO_ROWS = ("No columns to parse from file", "corresponds to no data")  # as readers say it
HUB_NAME = re.compile(r"[\w-][\w.-]*/[\w.-]+")  # of a repository
datasets.config.HF_UPDATE_DOWNLOAD_COUNTS = (
    False  # else a file on disk is reported to a server, which takes seconds offline
)
AT_ONCE = 8  # rows read and written together: with images in them they are megabytes long each


def open_source(path: str, config: str | None = None, split: str | None = None) -> Table:
    """The rows of a file, of a folder, or of a repository on the hub, where there is neither. Raises DataError."""
    place = Path(path)
    if place.is_dir():
        return open_folder(place, config, split)
    if place.is_file() or kind_of(place) is not None or not HUB_NAME.fullmatch(path):
        if place.is_file() and (config or split):
            raise DataError(f"{ending(path)} is one file; hub_split and config are of repositories and folders")
        return open_files([place])
    try:
        return open_hub(path, config, split)
    except DataError as error:
        raise DataError(f"{error}; nor is there a file or folder of that name here") from None


def open_files(paths: Sequence[Path], streaming: bool = False) -> Table:
    """The rows of .jsonl, .json, .csv, .tsv or .parquet files of one kind, plain or gzipped. Raises DataError."""
    path = paths[0]
    if not path.is_file():
        raise DataError(f"{ending(str(path))}: there is no such file")
    kind = kind_of(path)
    if kind is None:
        raise DataError(f"{ending(str(path))}: questions are read from {', '.join(KINDS)} files, plain or .gz")
    if kind == "json":
        return JsonTable(paths, streaming)
    try:
        how = _texts(path) if kind == "csv" else {}
        files = {"train": [str(path) for path in paths]}
        return ArrowTable(_load(kind, None, "train", streaming, data_files=files, **how), str(path), path.parent)
    except DataError:
        raise
    except Exception as error:  # the readers raise many kinds; each means that the file can't be parsed
        reason = _reason(error)
        if any(words in reason for words in NO_ROWS):
            raise DataError(f"{ending(str(path))}: there are no rows in it") from None
        raise DataError(f"{ending(str(path))}: the file can't be read ({reason})") from None


def kind_of(path: Path) -> str | None:
    """Which reader a file is for, by the end of its name; None where there is none."""
    return KINDS.get(Path(path.name.lower().removesuffix(".gz")).suffix)


def open_folder(path: Path, config: str | None, split: str | None, streaming: bool = False) -> Table:
    """A split of a downloaded repository, of a folder of images with metadata, or of one that `save_to_disk` has made.

    Where no split is named it is "train", or the only one. Raises DataError.
    """
    if not path.is_dir():
        raise DataError(f"{ending(str(path))}: there is no such file or folder")
    if is_saved(path):
        return ArrowTable(_saved(path, split), str(path), path)
    try:
        builder = datasets.load_dataset_builder(str(path), config)
        splits = list(map(str, builder.config.data_files or ()))
        split = split or _split_of(splits)
        if (part := split.partition("[")[0]) not in splits:
            raise DataError(f'{ending(str(path))}: Unknown split "{split}". Should be one of {splits}')
        if files := _texts_of(builder, split):
            table = open_files([Path(file) for file in files], streaming)
            table.folder = Path(files[0]).parent if Path(files[0]).name in METADATA else path
            return table
        # By its files: by its own name, `datasets` would take another folder's rows of that name from its cache.
        how = {"features": builder.info.features, "data_files": {part: _files_of(builder, part)}}
        return ArrowTable(_load(builder.name, None, split, streaming, **how), str(path), path)
    except DataError:
        raise
    except Exception as error:
        raise DataError(f"{ending(str(path))}: the folder can't be read ({_reason(error)})") from None


def is_saved(path: Path) -> bool:
    """Whether a folder is one that `save_to_disk` has made, of a data set or of several splits."""
    return (path / "dataset_dict.json").is_file() or (path / "state.json").is_file()


def open_hub(name: str, config: str | None, split: str | None, streaming: bool = False) -> Table:
    """A split of a repository on the hub, downloaded as a whole unless it is streamed. Raises DataError."""
    split = split or "train"
    try:
        try:
            table = _load(name, config, split, streaming)
        except DatasetGenerationError:  # as where JSON's later rows are of other types than the first
            return JsonTable(_downloaded(name, config, split))
        written = None if streaming else getattr(table.info, "builder_name", None)
        if written == "json":
            return JsonTable(_downloaded(name, config, split))
        if written == "csv":
            table = _load(name, config, split, index_col=False, **_as_texts(table.column_names))
        return ArrowTable(table, name)
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
    except DataError:
        raise
    except Exception as error:
        raise DataError(f"{name}: the repository can't be read ({_reason(error)})") from None


def _load(name: str, config: str | None, split: str, streaming: bool = False, **how: Any) -> Any:
    """`load_dataset`, which else holds back up to 1000 rows before it writes them into its cache."""
    with warnings.catch_warnings():
        warnings.simplefilter("error", ParserWarning)  # of pandas, which has cut something off
        return datasets.load_dataset(name, config, split=split, streaming=streaming, writer_batch_size=AT_ONCE, **how)


def _saved(path: Path, split: str | None) -> datasets.Dataset:
    try:
        saved = datasets.load_from_disk(str(path))
    except Exception as error:
        raise DataError(f"{ending(str(path))}: the folder can't be read ({_reason(error)})") from None
    if isinstance(saved, datasets.Dataset):
        return saved
    split = split or _split_of(list(saved))
    if split not in saved:
        raise DataError(f"{ending(str(path))}: there is no split {split!r}; there are {', '.join(map(str, saved))}")
    return saved[split]


def _split_of(splits: Sequence[Any]) -> str:
    return str(splits[0]) if len(splits) == 1 else "train"


def _files_of(builder: datasets.DatasetBuilder, split: str) -> list[str]:
    return [str(file) for file in (builder.config.data_files or {}).get(split, ())]


def _texts_of(builder: datasets.DatasetBuilder, split: str) -> list[str]:
    """The JSON, CSV or metadata files of a split, which `datasets` would type by their first rows; none if others."""
    files = _files_of(builder, split)
    if builder.name == "imagefolder":
        files = [file for file in files if Path(file).name in METADATA]
        return files if len(files) == 1 else []
    return files if {kind_of(Path(file)) for file in files} in ({"json"}, {"csv"}) else []


def _downloaded(name: str, config: str | None, split: str) -> list[Path]:
    files = _files_of(datasets.load_dataset_builder(name, config), split)
    if not files or {kind_of(Path(file)) for file in files} != {"json"}:
        raise DataError(f"{name}: the files of its split {split} do not fit into one table")
    return [Path(file) for file in datasets.DownloadManager(dataset_name=name).download(files)]


def _texts(path: Path) -> dict[str, Any]:
    """All columns of a .csv or .tsv file as texts: a choice "None" or "007" is no missing value and no number."""
    opened = gzip.open if path.name.lower().endswith(".gz") else open
    with opened(path, "rt", encoding="utf-8-sig", newline="") as lines:
        first = lines.readline()
        separator = "\t" if ".tsv" in path.name.lower() else max(",;\t", key=first.count)
        lines.seek(0)
        rows = csv.reader(lines, delimiter=separator)
        header = next(rows, [])
        _check_first(path, header, rows, separator)
    names = [name or f"Unnamed: {i}" for i, name in enumerate(header)]  # as pandas calls what has no name
    return {"sep": separator, "index_col": False, "chunksize": AT_ONCE, **_as_texts(names)}


def _check_first(path: Path, header: list[str], rows: Iterator[list[str]], separator: str) -> None:
    """Raises DataError where the first row has more cells than the header: pandas would cut off every row behind it."""
    try:
        row = next((row for row in rows if row), [])
    except csv.Error:  # a cell may be a picture
        return
    if any(cell.strip() for cell in row[len(header) :]):
        raise DataError(
            f"{ending(str(path))}: row 1 has {len(row)} cells and the header {len(header)}; put texts that hold a "
            f"{separator!r} in quotes, and give every column a name"
        )


def _as_texts(columns: Sequence[str] | None) -> dict[str, Any]:
    features = datasets.Features({column: datasets.Value("string") for column in columns or ()})
    return {"features": features, "keep_default_na": False}


def _reason(error: Exception) -> str:
    """The first line of an error, or of the one it wraps: splits and configurations are listed there."""
    cause = error.__cause__ or error
    return first_line(cause) if str(cause).strip() else "it is empty"
