"""Ends training between two steps when the process is told to stop, so that it can go on as if nothing had been."""

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import lightning as L

from mgpo.callbacks.folder import stays
from mgpo.utils.collectives import share_objects

SIGNALS = (signal.SIGTERM, signal.SIGINT)


class StopOnSignal(L.Callback):
    """At SIGTERM or Ctrl-C the running step ends, is saved, and the process exits with 128 + the signal's number.

    All ranks stop at the same step, whichever was told. While nothing is being trained, and at the second signal,
    it stops at once.
    """

    def __init__(self) -> None:
        self.told = 0
        self.training = False

    def listen(self) -> None:
        """Handle both signals here, in place of whoever has so far; nothing is done outside the main thread."""
        if threading.current_thread() is threading.main_thread():
            for number in SIGNALS:
                signal.signal(number, self.hear)

    def hear(self, number: int, frame: FrameType | None) -> None:
        """Notes a signal while a step is running; exits at once where none is, or at the second signal."""
        if self.told:
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
        self.told = number
        if not self.training:
            raise SystemExit(128 + number)
        os.write(2, b"\nstopping after this step; a second signal stops at once\n")  # print() may be running

    def on_validation_start(self, trainer: L.Trainer, pl_module: Any) -> None:
        """Takes the signals back from Lightning, which sets a handler of its own at every stage."""
        self.listen()  # Lightning's own handler, which waits for all ranks inside, comes with every stage

    def on_train_start(self, trainer: L.Trainer, pl_module: Any) -> None:
        """Takes the signals back from Lightning; from here on the running step is ended first."""
        self.listen()
        self.training = True

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Saves `last.ckpt` and exits on all ranks, if any of them was told to stop by the end of this step."""
        told = max(share_objects(self.told, trainer.world_size))
        if told:
            self.told = told
            saved = self._save(trainer)
            pl_module.print(f"stopped by {signal.Signals(told).name} after step {trainer.global_step}; {saved}")
            self._exit(trainer)

    def on_train_end(self, trainer: L.Trainer, pl_module: Any) -> None:
        """Exits on all ranks, if any of them was told to stop after the last step was over."""
        self.training = False
        self.told = max(share_objects(self.told, trainer.world_size))
        if self.told:
            self._exit(trainer)

    def _save(self, trainer: L.Trainer) -> str:
        folder = getattr(trainer.checkpoint_callback, "dirpath", None)
        if folder is None:
            return "nothing is saved, because trainer.callbacks has no ModelCheckpoint"
        if not stays(trainer):
            return "nothing is saved, because this run keeps no files"
        path = Path(folder) / "last.ckpt"
        trainer.save_checkpoint(path)
        return f"saved {path}; start again with --ckpt_path last"

    def _exit(self, trainer: L.Trainer) -> None:
        """Rank 0 speaks for the run; whoever started the others would take another code for a crash, and kill it."""
        raise SystemExit(128 + self.told if trainer.is_global_zero else 0)


@contextmanager
def handlers_kept() -> Iterator[None]:
    """Puts the handlers of both signals back, at its end, as they were at its beginning."""
    before = {number: signal.getsignal(number) for number in SIGNALS}
    try:
        yield
    finally:
        if threading.current_thread() is threading.main_thread():
            for number, handler in before.items():
                signal.signal(number, handler)
