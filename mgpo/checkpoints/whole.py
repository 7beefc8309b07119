"""Checkpoints in one file: written beside their name, which they get once they are complete."""

import os
from pathlib import Path
from typing import Any
from zipfile import is_zipfile

import torch
from lightning.fabric.plugins import TorchCheckpointIO
from lightning.pytorch.strategies import Strategy
from packaging.version import Version

from mgpo.checkpoints import sharded as shards
from mgpo.checkpoints.damaged import reading
from mgpo.errors import UserError
from mgpo.utils.atomic_files import replaced

State = dict[str, Any]
FOLDER = "checkpoints"  # of a run's folder
TRAINED = ("trained.ckpt", "last.ckpt")  # of a run


class WholeFiles(TorchCheckpointIO):
    """Saves checkpoints in one file, whole or not at all, and reads them without running anything of them.

    Lightning's own goes through the folder for temporary files, from where it copies if that is another disk; and it
    runs what a file asks for, unless it is told not to.

    Raises:
        UserError: If the disk takes no more; what stood under the name is then still there.
    """

    def save_checkpoint(self, checkpoint: State, path: str | os.PathLike, storage_options: Any = None) -> None:
        """Write a checkpoint beside its name, which it takes once complete. Raises UserError if the disk is full."""
        with replaced(Path(path), lasting=True) as unfinished, unfinished.open("wb") as file:
            torch.save(checkpoint, file)  # whose refusals are OSErrors; those of its own files are not

    def load_checkpoint(self, path: str | os.PathLike, map_location: Any = "cpu", weights_only: Any = True) -> State:
        """Read a checkpoint onto the CPU; nothing in it is run, whatever `weights_only` says. Raises UserError."""
        return load(Path(path))


def load(path: Path, mmap: bool = False) -> State:
    """A checkpoint in one file, without running anything of it; with `mmap` tensors are read when they are wanted.

    Raises UserError where it is none.
    """
    with reading(path):
        return checked(torch.load(path, "cpu", weights_only=True, mmap=mmap and is_zipfile(path)))


def load_state(path: Path) -> State:
    """What a checkpoint, in one file or in shards, holds beside weights; of one file the weights too."""
    if path.is_file():
        return load(path, mmap=True)
    with reading(path):
        return checked({"state_dict": {}, **torch.load(shards.complete(path) / shards.REST, "cpu", weights_only=True)})


def checked(checkpoint: Any) -> State:
    """The checkpoint as it was given, after a look at what it holds.

    Raises:
        ValueError: If it isn't what Lightning saves.
    """
    if not isinstance(checkpoint, dict) or not isinstance(checkpoint.get("state_dict"), dict):
        raise ValueError("it holds no state_dict")
    if not isinstance(step := checkpoint.get("global_step"), int) or step < 0:
        raise ValueError("its global_step is no number of steps")
    Version(str(checkpoint.get("pytorch-lightning_version")))
    return checkpoint


def save_whole_files(strategy: Strategy) -> None:
    """Have a strategy save by `WholeFiles`, unless another way to save was asked for."""
    if type(strategy.checkpoint_io) is TorchCheckpointIO:
        strategy.checkpoint_io = WholeFiles()


def newest(folder: Path) -> tuple[Path, int] | None:
    """The checkpoint of most optimiser updates in a folder, the latest of these, with their number, if there is one.

    One that can't be read is passed over. Raises UserError where there are some and none can be.
    """
    names = {path.name.removesuffix(".old") for pattern in ("*.ckpt", "*.ckpt.old") for path in folder.glob(pattern)}
    found = [(*state, str(folder / name)) for name in names if (state := _state(folder / name)) is not None]
    if names and not found:
        raise UserError(
            f"no checkpoint in {folder} can be read; restore one of {', '.join(sorted(names)[:3])}, or move the run's "
            "folder away to begin anew"
        )
    step, _, path = max(found, default=(0, 0, ""))
    return (Path(path), step) if path else None


def trained(run: Path) -> Path:
    """The checkpoint of a run's folder that holds what it learnt: the one of more updates, of equals the later.

    Raises UserError where there is none.
    """
    there = [path for name in TRAINED if (path := run / FOLDER / name).exists()]
    if not there:
        raise UserError(f"{run}/{FOLDER} holds neither {' nor '.join(TRAINED)}; this run has saved no weights yet")
    return max(there, key=lambda path: _state(path) or (-1, 0)) if len(there) > 1 else there[0]


def _state(path: Path) -> tuple[int, int] | None:
    """(optimiser updates, when it was written)."""
    try:
        step = load_state(path)["global_step"]
        file = path if path.is_file() else shards.complete(path) / shards.REST
        return step, file.stat().st_mtime_ns
    except (UserError, OSError):
        return None
