"""Checkpoints in one file: written beside their name, which they get once they are complete."""

import os
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.plugins import TorchCheckpointIO
from lightning.pytorch.strategies import Strategy

from mgpo import shards
from mgpo.errors import UserError
from mgpo.files import replaced
from mgpo.policy.checkpoint import UNREADABLE

FOLDER = "checkpoints"  # of a run's folder


class WholeFiles(TorchCheckpointIO):
    """Raises UserError where the disk takes no more; what stood under the name is then still there.

    Lightning's own goes through the folder for temporary files, from where it copies if that is another disk.
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | os.PathLike, storage_options: Any = None) -> None:
        with replaced(Path(path), lasting=True) as unfinished, unfinished.open("wb") as file:
            torch.save(checkpoint, file)  # whose refusals are OSErrors; those of its own files are not


def save_whole_files(strategy: Strategy) -> None:
    """Unless another way to save was asked for."""
    if type(strategy.checkpoint_io) is TorchCheckpointIO:
        strategy.checkpoint_io = WholeFiles()


def newest(folder: Path) -> tuple[Path, int] | None:
    """The checkpoint of most optimiser updates in a folder, the latest of these, with their number, if there is one.

    One that can't be read is passed over.
    """
    names = {path.name.removesuffix(".old") for pattern in ("*.ckpt", "*.ckpt.old") for path in folder.glob(pattern)}
    found = [(*state, str(folder / name)) for name in names if (state := _state(folder / name)) is not None]
    step, _, path = max(found, default=(0, 0, ""))
    return (Path(path), step) if path else None


def _state(path: Path) -> tuple[int, int] | None:
    """(optimiser updates, when it was written)."""
    try:
        file = path if path.is_file() else shards.complete(path) / shards.REST
        return torch.load(file, "cpu", weights_only=True, mmap=True)["global_step"], file.stat().st_mtime_ns
    except (UserError, *UNREADABLE):
        return None
