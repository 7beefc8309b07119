"""Metrics made of rows, each row counted once, over batches and ranks."""

import json
import math
import re
from abc import abstractmethod
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import fields
from statistics import fmean
from typing import Any, Literal

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.utilities import dim_zero_cat

from mgpo.errors import UserError
from mgpo.metrics.record import Record
from mgpo.metrics.values import groups_of, known

By = Literal["split", "category"]
Row = dict[str, Any]
LEFT_OUT = ("truth", "replies", "named", "regions", "lengths", "named_in", "cut_from")
KEPT = [field.name for field in fields(Record) if field.name not in LEFT_OUT]


class RowMetric(Metric):
    """A number made of rows, of which each (split, id, step, rollout) counts once.

    Samplers pad: two ranks may hold the same question. The state is therefore the rows themselves, as bytes of
    JSON lines, and whatever the batches and ranks were, they are put into one order before anything is computed.
    A rank without rows takes part in every exchange.

    Args:
        by: One value for each split or category instead of one for all.
        options: torchmetrics' own.
    """

    full_state_update = False
    is_differentiable = False
    plot_lower_bound = 0.0
    lines: Any  # tensors of bytes; between sync and unsync, one

    def __init__(self, by: By | None = None, **options: Any) -> None:
        super().__init__(**options)
        if by not in (None, "split", "category"):
            raise UserError(f"{type(self).__name__}: by is {by!r}; it must be split, category or nothing")
        self.by: By | None = by
        self.add_state("lines", [], dist_reduce_fx="cat")

    @abstractmethod
    def as_row(self, item: Any) -> Row:
        """Give what is kept of an item, for JSON: at least id, split and category."""

    @abstractmethod
    def value(self, rows: list[Row]) -> float | dict[str, float]:
        """Give the number, or a number by label, of rows in order; NaN where none of them applies."""

    def update(self, items: Sequence[Any]) -> None:
        """Add items as rows; one that was there before counts once all the same."""
        self.lines.append(self._bytes([self.as_row(item) for item in items]))

    def compute(self) -> Any:
        """A float64 scalar (or what the metric says it is), or such by label; on the CPU.

        Raises:
            UserError: Where `value` gives anything else.
        """
        rows = self.rows()
        if self.by is None:
            return self._of(rows)
        parts = defaultdict(list)
        for row in rows:
            parts[row[self.by]].append(row)
        return {label: self._of(part) for label, part in sorted(parts.items())}

    def _of(self, rows: list[Row]) -> Any:
        value = self.value(rows)
        try:
            return _tensors(value)
        except (TypeError, ValueError, RuntimeError):
            name = type(self).__name__
            said = f"the metric {name} gives {value!r:.80}; it should give a number, or numbers by label"
            raise UserError(said) from None

    def rows(self) -> list[Row]:
        """All rows in order, each once; of those that differ all the same, the last in the order of their text."""
        text = dim_zero_cat(self.lines).cpu().numpy().tobytes().decode() if len(self.lines) else ""
        rows = [json.loads(line) for line in sorted(text.splitlines())]
        found = {(row["split"], row["id"], row.get("step", 0), row.get("rollout", 0)): row for row in rows}
        return [row for _, row in sorted(found.items(), key=lambda item: item[0])]

    def sync(self, *args: Any, **options: Any) -> None:
        """As torchmetrics does; all ranks take part, those without rows with an empty tensor."""
        # torchmetrics would send float32 for a rank that never saw a row
        if not len(self.lines):
            self.lines = [self._bytes([])]
        super().sync(*args, **options)

    def _bytes(self, rows: list[Row]) -> Tensor:
        text = "".join(f"{json.dumps(row)}\n" for row in rows)
        return torch.from_numpy(np.frombuffer(bytearray(text.encode()), np.uint8)).to(self.device)

    def plot(self, val: Any = None, ax: Any = None) -> tuple[Any, Any]:
        """A point for a scalar, lines for a list of results, bars for a dictionary. All ranks must call."""
        val = self.compute() if val is None else val
        if not isinstance(val, dict):
            return self._plot(val, ax)
        ax = new_axes() if ax is None else ax
        bars = _flat(val)
        ax.bar(list(bars), list(bars.values()))
        ax.set_ylabel(_words(re.sub(r"(?<=[a-z])(?=[A-Z])", " ", type(self).__name__)).lower())
        ax.set_ylim(bottom=self.plot_lower_bound, top=self.plot_upper_bound)
        ax.tick_params(axis="x", labelrotation=90)
        return ax.figure, ax


class RecordMetric(RowMetric):
    """A number made of records; `update` takes them as they come."""

    def as_row(self, item: Record) -> Row:
        """A record's fields for JSON, without the right answer, the replies and what else is kept by turn."""
        return {name: getattr(item, name) for name in KEPT}

    def value(self, rows: list[Row]) -> float | dict[str, float]:
        """What `judge` makes of the rows, read back as records."""
        return self.judge([self.as_record(row) for row in rows])

    def as_record(self, row: Row) -> Record:
        """The record that a row was made of, without its replies and its right answer."""
        return Record(**row, truth="", replies=())

    @abstractmethod
    def judge(self, records: list[Record]) -> float | dict[str, float]:
        """Give the number of records in order: a group's next to each other, by number of rollout."""


class EpisodeMean(RecordMetric):
    """The mean of a record's field over the episodes in which it applies."""

    field: str
    mean: Callable[[Sequence[float]], float] = staticmethod(fmean)

    def judge(self, records: list[Record]) -> float:
        """The mean over records in which the field has a value; NaN without any."""
        found = known(self.field, records)
        return self.mean(found) if found else math.nan


class GroupMean(RecordMetric):
    """The mean of a value over the groups to which it applies; every group weighs the same."""

    of: Callable[[Sequence[Record]], float | None]

    def judge(self, records: list[Record]) -> float:
        """The mean over groups to which `of` applies; NaN without any."""
        found = [value for group in groups_of(records) if (value := self.of(group)) is not None]
        return fmean(found) if found else math.nan


def new_axes() -> Any:
    """Axes in a figure of their own, of which pyplot knows nothing, so that nobody has to close it."""
    return Figure(layout="constrained").subplots()


def _tensors(value: float | dict[str, float]) -> Any:
    if isinstance(value, dict):
        return {name: _tensors(number) for name, number in value.items()}
    return torch.tensor(value, dtype=torch.float64)


def _words(name: str) -> str:
    return name.replace("_", " ")


def _flat(val: dict[str, Any], before: str = "") -> dict[str, float]:
    """Labels of nested dictionaries joined with spaces."""
    flat = {}
    for name, value in val.items():
        label = f"{before} {_words(name)}".strip()
        flat |= _flat(value, label) if isinstance(value, dict) else {label: float(value)}
    return flat
