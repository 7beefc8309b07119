"""Writes checkpoints in shards, whole or not at all, at once or while training goes on."""

import os
import shutil
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, distributed
from torch.distributed.checkpoint.filesystem import FileSystemWriter
from torch.distributed.checkpoint.state_dict_saver import async_save
from torch.distributed.checkpoint.state_dict_saver import save as save_tensors

from mgpo.checkpoints.sharded import REST, WEIGHTS
from mgpo.utils.atomic_files import writing

State = dict[str, Any]


class Saver:
    """One checkpoint at a time. All ranks must call, with the same paths.

    A folder has its name once it is complete; until then what stood under this name stays as it was.

    Args:
        background: Only copy to the host's memory, and let threads write that. They talk in a group of their own.
    """

    def __init__(self, background: bool) -> None:
        self.group: Any = distributed.new_group(backend="gloo") if background else None
        self.first = distributed.get_rank() == 0
        self.thread = ThreadPoolExecutor(1)
        self.pending: tuple[Path, Future] | None = None
        self.unwanted: list[Path] = []

    def save(self, path: Path, checkpoint: State) -> None:
        """Save a checkpoint into the folder `path`; in the background only the copy to the host's memory is waited for.

        Raises what went wrong with the one before, if that was written in the background.
        """
        self.wait()
        with writing(path):
            self._save(path, *split(checkpoint))

    def _save(self, path: Path, tensors: State, rest: State) -> None:
        unfinished = path.with_name(path.name + ".unfinished")
        if self.first:
            shutil.rmtree(unfinished, ignore_errors=True)
            unfinished.mkdir(parents=True)
            torch.save(rest, unfinished / REST)
        distributed.barrier()
        writer = FileSystemWriter(unfinished)
        if self.group is None:
            save_tensors(tensors, storage_writer=writer)
            self._name(unfinished, path)
            distributed.barrier()
        else:
            written: Any = async_save(tensors, storage_writer=writer, process_group=self.group)
            self.pending = path, self.thread.submit(lambda: (written.result(), self._name(unfinished, path)))

    def remove(self, path: Path) -> None:
        """Remove a checkpoint: at once, or when the one that is being written is complete."""
        if self.pending is None:
            shutil.rmtree(path, ignore_errors=True)
        else:
            self.unwanted.append(path)

    def wait(self) -> None:
        """Wait until everything is written, and remove what waited for that. All ranks must call.

        Raises what went wrong in the background.
        """
        if self.pending is not None:
            (path, pending), self.pending = self.pending, None
            with writing(path):
                pending.result()
            for path in self.unwanted:
                shutil.rmtree(path, ignore_errors=True)
            self.unwanted = []
            distributed.barrier()

    def _name(self, new: Path, path: Path) -> None:
        if not self.first:
            return
        old = path.with_name(path.name + ".old")
        if path.is_file():
            path.unlink()
        if path.exists():
            shutil.rmtree(old, ignore_errors=True)
            os.rename(path, old)
        os.rename(new, path)
        shutil.rmtree(old, ignore_errors=True)


def split(checkpoint: State) -> tuple[dict[str, Tensor], State]:
    """Split a checkpoint into its tensors, under flat names, and the rest, in its own form."""
    tensors = {WEIGHTS + name: value for name, value in checkpoint["state_dict"].items()}
    states = []
    for number, state in enumerate(checkpoint.get("optimizer_states", [])):
        rest: State = {}
        for parameter, values in state["state"].items():
            for key, value in values.items():
                if isinstance(value, Tensor):
                    tensors[f"optimizer.{number}.{parameter}.{key}"] = value
                else:
                    rest.setdefault(parameter, {})[key] = value
        states.append({**state, "state": rest})
    others = {name: value for name, value in checkpoint.items() if name not in ("state_dict", "optimizer_states")}
    return tensors, {**others, "optimizer_states": states} if states else others
