"""`python -m mgpo leaks`: which test images are among the training images."""

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path

from rich.table import Table

from mgpo.data.sources import Source
from mgpo.errors import UserError
from mgpo.images import BadImage
from mgpo.leaks.fingerprint import Fingerprint, file_digest, fingerprint
from mgpo.leaks.index import BITS, Index, Kind
from mgpo.scoring.published import render
from mgpo.types import Question

SHOWN = 20  # leaks in the table; the file has them all


@dataclass(frozen=True)
class Leak:
    """A test question whose image is a training question's, or looks like it."""

    test: str
    split: str
    train: str
    kind: Kind
    distance: int


def leaks(
    train: Source, test: list[Source], distance: int = 4, tolerance: float = 10.0, workers: int = 1,
    output: str = "leaks.json",
) -> None:  # fmt: skip
    """Look for test images among the training images. Ends with exit code 1 where there are any, else with 0.

    The same file, the same pixels in another file, and near: difference hashes within a Hamming distance and
    thumbnails alike, as after scaling or compression. Of the test images, fingerprints are held (4 KB each);
    of the training images, those that are being looked at.

    Args:
        train: The training questions.
        test: The test questions, by split.
        distance: The largest Hamming distance of 64-bit hashes that counts as near; 0 to 16.
        tolerance: The largest mean difference of 32 x 32 thumbnails that counts as near, in levels of 255.
        workers: Images looked at side by side; each takes the memory of one decoded image.
        output: A JSON file of all leaks.
    """
    if not 0 <= distance <= 16:
        raise UserError(f"distance is {distance}; hashes of {BITS} bits are told apart by 0 to 16")
    index, skipped = Index(distance, tolerance), []
    splits: dict[str, str] = {}
    for source in test:
        for question, mark in _each(source, workers, None, skipped):
            index.add(question.id, mark)  # pyright: ignore[reportArgumentType]
            splits[question.id] = question.split
    found = [leak for leak in _search(train, index, splits, workers, skipped)]
    report = {"train": len(train), "test": len(splits), **_counts(found), "left_out": skipped}
    path = Path(output)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({**report, "leaks": [asdict(leak) for leak in found]}, indent=1, ensure_ascii=False))
    print(_table(found, report) + f"leaks: {path}")
    if found:
        raise SystemExit(1)


def _search(
    train: Source, index: Index, splits: dict[str, str], workers: int, skipped: list[str]
) -> Iterator[Leak]:
    for question, mark in _each(train, workers, index, skipped):
        hits = [(name, "same file", 0) for name in mark] if isinstance(mark, list) else index.find(mark)
        for name, kind, distance in hits:
            yield Leak(name, splits[name], question.id, kind, distance)


def _each(
    source: Source, workers: int, known: Index | None, skipped: list[str]
) -> Iterator[tuple[Question, Fingerprint | list[str]]]:
    """Each question with its fingerprint, or with the names of the known images that are the very same file.

    Raises nothing for an image that can't be read: it is named in `skipped`.
    """

    def look(i: int) -> tuple[Question, Fingerprint | list[str] | str]:
        question = source[i]
        try:
            if known is not None and (names := known.of_file(file_digest(question.picture))):
                return question, names  # no need to decode it
            return question, fingerprint(question.picture)
        except BadImage as error:
            return question, str(error)

    with ThreadPoolExecutor(workers) as pool:
        for question, mark in pool.map(look, range(len(source))):
            if isinstance(mark, str):
                skipped.append(f"{question.id}: {mark}")
            else:
                yield question, mark


def _counts(found: Sequence[Leak]) -> dict[str, object]:
    """Test questions that leak, by the strongest kind of each."""
    order: dict[Kind, int] = {"same file": 0, "same pixels": 1, "near": 2}
    kinds: dict[tuple[str, str], Kind] = {}
    for leak in sorted(found, key=lambda leak: -order[leak.kind]):
        kinds[leak.split, leak.test] = leak.kind
    by_kind = Counter(kinds.values())
    by_split = Counter(split for split, _ in kinds)
    return {"leaking": len(kinds), "by_kind": {k: by_kind[k] for k in order}, "by_split": dict(by_split)}


def _table(found: Sequence[Leak], report: dict[str, object]) -> str:
    title = f"{report['leaking']} of {report['test']} test questions have an image of the training set"
    table = Table(title=title, caption=f"{len(found) - SHOWN} more in the file" if len(found) > SHOWN else None)
    for name in ("split", "test", "train", "kind", "distance"):
        table.add_column(name)
    for leak in found[:SHOWN]:
        table.add_row(leak.split, leak.test, leak.train, leak.kind, str(leak.distance))
    return render(table)
