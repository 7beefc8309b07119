"""The policy's own right rollouts, out of the Parquet that a run has logged, with the questions they answer."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import pyarrow as pa
import pyarrow.parquet as pq

from mgpo.data.base import DataError, Source
from mgpo.data.row_source import ending, listed
from mgpo.errors import first_line
from mgpo.types import Question, SavedRollout, Stop

FOLDER = "rollouts"  # of a run's folder
COLUMNS = {
    "step": pa.int64(),
    "id": pa.string(),
    "prompt_hash": pa.string(),
    "right": pa.bool_(),
    "stops": pa.list_(pa.string()),
    "ids": pa.list_(pa.list_(pa.int32())),
}
AT_ONCE = 256  # rows in memory, besides those that are kept
LONGEST = 1_000_000  # tokens of a rollout
Row = dict[str, Any]


class OwnRollouts:
    """Questions that bring a right rollout of the policy's own, to be imitated under `model.supervised` (RFT).

    Every rollout is a question of its own. The log holds no pixels: the source that the run was trained on is named
    beside it, and tells them apart by their ids. Rollouts of a question with the same tokens count once.

    Args:
        rollouts: A run's folder such as runs/mgpo/version_0, the `rollouts` in it, or one .parquet file there.
        questions: The source that the run was trained on, or a part of it.
        per_question: Rollouts of a question at most, the latest first.
        from_step: Only rollouts from this many optimiser updates on.

    Raises:
        DataError: If the log can't be read, or holds no right rollout of these questions.
    """

    def __init__(self, rollouts: str, questions: Source, per_question: int = 4, from_step: int = 0) -> None:
        if per_question < 1:
            raise DataError(f"per_question is {per_question}; at least 1 rollout of a question is learnt")
        self.questions, self.name = questions, ending(rollouts)
        places = {questions[i].id: i for i in range(len(questions))}
        self.rows = self.right = 0
        self.damaged: list[str] = []
        self.strangers: dict[str, int] = {}  # right rollouts by the id of a question that is not in the source
        kept: dict[str, dict[tuple[tuple[int, ...], ...], tuple[int, SavedRollout]]] = {}
        for path in _files(Path(rollouts)):
            for number, row in enumerate(_rows(path), start=1):
                self.rows += 1
                try:
                    name, step, rollout = _rollout(row)
                except ValueError as error:
                    self.damaged.append(f"row {number} of {path.name}, {error}")
                    continue
                if rollout is None or step < from_step:
                    continue
                self.right += 1
                if name not in places:
                    self.strangers[name] = self.strangers.get(name, 0) + 1
                    continue
                own = kept.setdefault(name, {})
                if rollout.ids not in own or own[rollout.ids][0] <= step:
                    own[rollout.ids] = step, rollout
                if len(own) > per_question:
                    del own[min(own, key=lambda ids: own[ids][0])]
        self.kept = [
            (places[name], rollout)
            for name in sorted(kept, key=places.__getitem__)
            for _, rollout in sorted(kept[name].values(), key=lambda pair: -pair[0])
        ]
        if not self.kept:
            found = f"{self.rows:,} rollouts, {self.right:,} of them right from step {from_step} on"
            reasons = listed([part for part in (self._of_others(), *self.damaged) if part]) or "none to learn from"
            raise DataError(f"{self.name}: no rollout can be used ({found}; {reasons})")

    def __len__(self) -> int:
        return len(self.kept)

    def __getitem__(self, index: int) -> Question:
        place, rollout = self.kept[index]
        return replace(self.questions[place], imitated=rollout)

    def complaint(self) -> str | None:
        """What was left out; None where there is nothing to say."""
        notes = [self._of_others()] if self.strangers else []
        if self.damaged:
            notes.append(f"{len(self.damaged)} rows are damaged: {listed(self.damaged)}")
        own = f"{self.name}: {'; '.join(notes)}" if notes else None
        tell = getattr(self.questions, "complaint", None)
        return "; ".join(filter(None, (own, tell() if tell else None))) or None

    def _of_others(self) -> str:
        if not self.strangers:
            return ""
        names = [repr(name[:60]) for name in self.strangers]
        count = sum(self.strangers.values())
        return f"{count} right rollouts belong to questions that the source does not have: {listed(names)}"


def _files(place: Path) -> list[Path]:
    """The shards of a run, in order. Raises DataError where there are none."""
    if place.is_file():
        return [place]
    for folder in (place / FOLDER, place):
        if found := sorted(folder.glob("*.parquet")):
            return found
    raise DataError(
        f"{ending(str(place))}: there are no rollouts here; name the folder of a run that had mgpo.callbacks.RolloutLog"
    )


def _rows(path: Path) -> Iterator[Row]:
    """The rows of a shard, with the columns that are needed. Raises DataError where they can't be read."""
    try:
        with pq.ParquetFile(path) as file:
            schema: Any = file.schema_arrow
            there = {name: schema.field(name).type for name in schema.names}
            wrong = [name for name in COLUMNS if there.get(name) != COLUMNS[name]]
            if wrong:
                raise DataError(
                    f"{ending(str(path))}: this is no log of rollouts: column {wrong[0]!r} "
                    f"{'holds ' + str(there[wrong[0]])[:60] if wrong[0] in there else 'is missing'}"
                )
            for batch in file.iter_batches(AT_ONCE, columns=[*COLUMNS]):
                yield from batch.to_pylist()
    except DataError:
        raise
    except (pa.ArrowException, OSError, ValueError, MemoryError) as error:
        reason = first_line(error)
        raise DataError(f"{ending(str(path))}: the file can't be read as Parquet ({reason})") from None


def _rollout(row: Row) -> tuple[str, int, SavedRollout | None]:
    """The question's id, the step, and the rollout; None for one that was not right. Raises ValueError."""
    for column in ("id", "step", "right", "prompt_hash"):
        if row[column] is None:
            raise ValueError(f"column {column}: it is empty")
    if not row["right"]:
        return row["id"], row["step"], None
    ids, stops = _filled(row, "ids"), _filled(row, "stops")
    if sum(map(len, ids)) > LONGEST:
        raise ValueError(f"column ids: it has more than {LONGEST:,} tokens")
    if not set(stops) <= set(get_args(Stop)):
        raise ValueError("column stops: a reply ends at end, marker or length")
    if len(stops) != len(ids):
        raise ValueError("columns stops and ids: they differ in length")
    if not all(part and None not in part for part in ids):
        raise ValueError("column ids: a reply has at least one token")
    return row["id"], row["step"], SavedRollout(tuple(map(tuple, ids)), tuple(stops), row["prompt_hash"])


def _filled(row: Row, column: str) -> list[Any]:
    cell = row[column]
    if not cell or any(part is None for part in cell):
        raise ValueError(f"column {column}: it is empty, or a part of it is")
    return cell
