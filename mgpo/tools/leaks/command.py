"""`python -m mgpo leaks`: which test images are among the training images."""

from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.markup import escape
from rich.table import Table

from mgpo.data.base import Source, check_ids, question_of
from mgpo.errors import UserError
from mgpo.images.decoding import BadImage
from mgpo.tools.leaks.fingerprint import Fingerprint, fingerprint
from mgpo.tools.leaks.index import BITS, KINDS, Index, Kind
from mgpo.types import Question
from mgpo.utils.atomic_files import check_output, write_json
from mgpo.utils.terminal_tables import first_that_fits

SHOWN = 20  # leaks in the table; the file has them all
BLOCK = 64  # images ahead of the look-up


@dataclass(frozen=True)
class Leak:
    """A test question of whose images one is a training question's, or looks like it."""

    split: str
    test: str
    train: str
    kind: Kind
    distance: int  # of the hashes


def leaks(
    train: Source,
    test: list[Source],
    distance: int = 4,
    tolerance: float = 0.2,
    workers: int = 1,
    output: str = "leaks.json",
) -> None:
    """Look for test images among the training images. Ends with exit code 1 where there are any, else with 0.

    Found are the same file, the same pixels in another file, and near ones, as after scaling or compression.
    Fingerprints (4 KB each) are held of the test images; of the training images, those in work.

    Args:
        train: The training questions.
        test: The test questions, by split: a list, to which `--test+ CLASS` adds one, whose arguments follow.
        distance: The largest Hamming distance of 64-bit difference hashes that counts as near; 0 to 16.
        tolerance: The largest mean difference of 32 x 32 thumbnails that counts as near, as a share of their contrast.
        workers: Images looked at side by side; each takes the memory of one decoded image.
        output: A JSON file of all leaks.
    """
    if not 0 <= distance <= 16 or workers < 1:
        raise UserError(f"distance is {distance} (0 to 16 of {BITS} bits), workers {workers} (at least 1)")
    check_output(Path(output))
    check_ids("test", test)
    index, left_out = Index(distance, tolerance), []
    for source in test:
        for question, print_ in fingerprints(source, workers, left_out):
            index.add((question.split, question.id), print_)
    found = [
        Leak(*name, question.id, kind, far)
        for question, print_ in fingerprints(train, workers, left_out)
        for name, kind, far in index.find(print_)
    ]
    report = {"train": len(train), "test": sum(map(len, test)), **count(found), "left_out": left_out}
    write_json(Path(output), {**report, "leaks": [asdict(leak) for leak in found]}, "name another --output")
    print(_table(found, report) + "".join(f"left out: {line}\n" for line in left_out[:SHOWN]) + f"leaks: {output}")
    if found:
        raise SystemExit(1)


def fingerprints(source: Source, workers: int, left_out: list[str]) -> Iterator[tuple[Question, Fingerprint]]:
    """Each question's images, in order; one that can't be read is named in `left_out` instead."""

    def look(i: int) -> tuple[Question, list[Fingerprint | str]]:
        question, prints = question_of(source, i), []
        for picture in question.pictures:
            try:
                prints.append(fingerprint(picture))
            except BadImage as error:
                prints.append(str(error))
        return question, prints

    with ThreadPoolExecutor(workers) as pool:
        for start in range(0, len(source), BLOCK):
            for question, prints in pool.map(look, range(start, min(start + BLOCK, len(source)))):
                for print_ in prints:
                    if isinstance(print_, str):
                        left_out.append(f"{question.id}: {print_}")
                    else:
                        yield question, print_


def count(found: Sequence[Leak]) -> dict[str, Any]:
    """Test questions that leak, each under its strongest kind."""
    strongest: dict[tuple[str, str], Kind] = {}
    for leak in sorted(found, key=lambda leak: KINDS.index(leak.kind), reverse=True):
        strongest[leak.split, leak.test] = leak.kind
    by_kind = Counter(strongest.values())
    by_split = Counter(split for split, _ in strongest)
    return {
        "leaking": len(strongest),
        "by_kind": {kind: by_kind[kind] for kind in KINDS},
        "by_split": dict(sorted(by_split.items())),
    }


def _table(found: Sequence[Leak], report: dict[str, Any]) -> str:
    title = (
        f"{report['leaking']} of {report['test']} test questions have an image of the {report['train']} for training"
    )
    table = Table(
        title=title, box=SIMPLE_HEAD, caption=f"{len(found) - SHOWN} more in the file" if len(found) > SHOWN else None
    )
    for name in ("of the test, and below it of training", "split", "kind", "distance"):
        table.add_column(name)
    for leak in found[:SHOWN]:
        table.add_row(escape(f"{leak.test}\n{leak.train}"), escape(leak.split), leak.kind, str(leak.distance))
    return first_that_fits([table])
