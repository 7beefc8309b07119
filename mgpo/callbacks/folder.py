"""Where a run leaves its files."""

import atexit
import shutil
import tempfile
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

import lightning as L
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loggers.logger import DummyLogger
from lightning.pytorch.utilities import rank_zero_info

from mgpo.errors import UserError
from mgpo.utils.atomic_files import locked, writing

LOCK = ".lock"
ELSEWHERE = "begin a run in a folder of its own, without --ckpt_path last and trainer.logger.version"

SHIPPED = "runs"  # where the loggers of configurations that come with the package keep their runs
_PASSING: set[str] = set()  # folders that go when the process ends
_WITHOUT_LOGGER: WeakKeyDictionary[L.Trainer, Path] = WeakKeyDictionary()


def run_folder(trainer: L.Trainer) -> Path:
    """The run's own folder, whatever the logger: two runs never share one. It is made if need be.

    Loggers without a folder of their own (W&B) get save_dir/name/version, as for checkpoints; without a logger
    it is the next free runs/unlogged/version_N.
    """
    logger = trainer.logger
    if logger is None or isinstance(logger, DummyLogger):
        folder = _WITHOUT_LOGGER.setdefault(
            trainer, _next_version(Path(trainer.default_root_dir) / "runs" / "unlogged")
        )
    elif getattr(logger, "log_dir", None):
        folder = Path(str(logger.log_dir))
    else:
        getattr(logger, "experiment", None)  # W&B names a run when it starts
        folder = Path(logger.save_dir or trainer.default_root_dir) / str(logger.name) / str(logger.version)
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
    return folder


def unlogged_root(trainer: Mapping[str, Any]) -> dict[str, str]:
    """The `default_root_dir` of a trainer that is configured without a logger, or to try itself out, and names none.

    It is a folder which goes when the process ends: nothing is left, least of all where the command was given.
    """
    if trainer.get("default_root_dir") or not (trainer.get("logger") is False or trainer.get("fast_dev_run")):
        return {}
    folder = tempfile.mkdtemp(prefix="mgpo-")
    rank_zero_info("without a logger this run keeps no files; trainer.default_root_dir names a folder for them")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    _PASSING.add(folder)
    return {"default_root_dir": folder}


def root_for_loggers(trainer: Any) -> None:
    """Puts a configured `default_root_dir` in place of the folder that a shipped configuration names for its loggers.

    A logger whose `save_dir` is another keeps it.
    """
    root, loggers = trainer.get("default_root_dir"), trainer.get("logger")
    for logger in loggers if isinstance(loggers, list) else [loggers]:
        arguments = logger.get("init_args") if hasattr(logger, "get") else None
        if root and arguments and str(arguments.get("save_dir")) == SHIPPED:
            arguments["save_dir"] = str(root)


def stays(trainer: L.Trainer) -> bool:
    """Whether what is written into the run's folder is still there when the process has ended."""
    return str(trainer.default_root_dir) not in _PASSING


def goes_on(trainer: L.Trainer) -> bool:
    """Whether training goes on in the folder of the checkpoint that it starts from; false on ranks other than 0."""
    if not trainer.is_global_zero or trainer.state.fn != "fit" or trainer.ckpt_path is None:
        return False
    return run_folder(trainer).absolute() in Path(trainer.ckpt_path).absolute().parents


class OwnFolder(L.Callback):
    """Keeps other processes out of the run's folder until this one ends.

    Args:
        afresh: A run begins, which must not take the place of another.
    """

    def __init__(self, afresh: bool = False) -> None:
        self.held, self.afresh = ExitStack(), afresh
        self.folder: Path | None = None
        atexit.register(self.held.close)

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Locks the run's folder from rank 0, for as long as the process lives.

        Raises:
            UserError: On every rank, if another process holds the folder, or another run has checkpoints there.
        """
        complaint = None
        if trainer.is_global_zero and self.folder != (folder := run_folder(trainer)):
            try:
                self.held.enter_context(locked(folder / LOCK, str(folder), ELSEWHERE))
                self.folder = folder
                if trainer.logger is None:
                    _save_into(folder, trainer)
                if self.afresh and any((folder / "checkpoints").glob("*.ckpt")):
                    raise UserError(f"{folder} holds the checkpoints of another run; {ELSEWHERE}")
            except UserError as error:
                complaint = str(error)
        if complaint := trainer.strategy.broadcast(complaint):
            raise UserError(complaint)  # on every rank, or the others would wait


def _save_into(folder: Path, trainer: L.Trainer) -> None:
    """Has checkpoints lie with what else a run leaves, which without a logger Lightning does not know of."""
    for callback in trainer.checkpoint_callbacks:
        if isinstance(callback, ModelCheckpoint) and callback.dirpath is None:
            callback.dirpath = str(folder / "checkpoints")


def _next_version(parent: Path) -> Path:
    taken = [int(path.name.removeprefix("version_")) for path in parent.glob("version_*") if path.name[8:].isdigit()]
    return parent / f"version_{max(taken, default=-1) + 1}"
