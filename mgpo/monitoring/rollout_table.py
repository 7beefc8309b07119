"""Rollouts as rows of one fixed schema, for Parquet: a column means the same in every shard of every run."""

from collections.abc import Iterable, Sequence
from typing import Any

import pyarrow as pa

from mgpo.metrics.record import records_of
from mgpo.types import Trajectory

_numbers = pa.list_(pa.float64())
_whole = pa.list_(pa.int64())
_texts = pa.list_(pa.string())
SCHEMA = pa.schema(
    {
        "run": pa.string(),  # when the run began, in UTC; tells a resumed run's rows from those before it
        "step": pa.int64(),  # optimiser updates before it
        "split": pa.string(),
        "id": pa.string(),  # of the question
        "category": pa.string(),
        "rollout": pa.int64(),  # its number in the group
        "prompt_hash": pa.string(),  # equal for the rollouts that began with the same ids
        "turns": pa.int64(),
        "named": pa.list_(_numbers),  # by turn: the box that was named, usable or not, in pixels of the original
        "named_in": _whole,  # by turn: the number of the picture that it is in, from 1 on
        "regions": pa.list_(_whole),  # what was cut out and shown, in order, in pixels of the original
        "cut_from": _whole,  # the number of the picture that each is a part of
        "reasons": _texts,  # by turn: why its box could not be used
        "answer": pa.string(),
        "truth": pa.string(),
        "right": pa.bool_(),
        "reward": pa.float64(),  # what training saw
        "tokens": _whole,  # sampled, by turn
        "logprob_sum": _numbers,  # of the sampled tokens when they were drawn, in nats, by turn
        "logprob_mean": _numbers,
        "logprob_min": pa.float64(),  # of the least likely token of all turns
        "stops": _texts,  # by turn: end, marker or length
        "replies": _texts,
        "ids": pa.list_(pa.list_(pa.int32())),  # sampled, by turn
    }
)
NAMES = frozenset(SCHEMA.names)


def rows_of(trajectories: list[Trajectory], group_size: int, step: int, run: str) -> list[dict[str, Any]]:
    """Rows for SCHEMA of whole groups of judged trajectories, a question's next to each other.

    Args:
        trajectories: The groups, one after the other.
        group_size: Rollouts of a question.
        step: Optimiser updates before them.
        run: What tells them from rows of another run into the same folder.
    """
    rows = []
    for record, trajectory in zip(records_of(trajectories, group_size, step), trajectories, strict=True):
        turns = trajectory.turns
        sums = [sum(turn.reply.logprobs) for turn in turns]
        tokens = [len(turn.reply.ids) for turn in turns]
        row = {name: value for name, value in vars(record).items() if name in NAMES} | {
            "run": run,
            "prompt_hash": turns[0].prompt.hash,
            "reasons": [turn.parsed_box.reason if turn.parsed_box is not None else None for turn in turns],
            "tokens": tokens,
            "logprob_sum": sums,
            "logprob_mean": [total / max(n, 1) for total, n in zip(sums, tokens)],
            "logprob_min": min((logprob for turn in turns for logprob in turn.reply.logprobs), default=0.0),
            "stops": [turn.reply.stop for turn in turns],
            "ids": [turn.reply.ids for turn in turns],
        }
        rows.append({name: _writable(value) for name, value in row.items()})
    return rows


def table_of(rows: Sequence[dict[str, Any]]) -> pa.Table:
    """An Arrow table of rows under SCHEMA; what a row lacks is null."""
    return pa.Table.from_pylist(list(rows), schema=SCHEMA)


def _writable(value: Any) -> Any:
    """Text that UTF-8 can hold: a JSON file or a model may hold half a surrogate pair."""
    if isinstance(value, str):
        return value.encode("utf-8", "replace").decode("utf-8")
    if isinstance(value, Iterable):
        return [_writable(part) for part in value]
    return value
