"""The dashboard of a run in the terminal; plain lines where there is no terminal."""

import math
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import ProgressBar

from mgpo.monitoring.terminal import Board
from mgpo.monitoring.throughput import Stopwatch

SHOWN = {
    "train/reward": "reward",
    "train/valid_box_ratio": "valid_box",
    "train/accuracy": "accuracy",
    "train/nll": "nll",
}


class Progress(ProgressBar):
    """Training steps done, reward, valid boxes, accuracy of the rollouts, sampled tokens per second, time left.

    A step is a batch of questions, or an optimiser update where `trainer.max_steps` is set. Evaluations have
    a bar of their own; what the module and callbacks print appears above the bars.

    Args:
        every_n_steps: Where there is no terminal: steps, or batches of an evaluation, from one line to the next.
    """

    def __init__(self, every_n_steps: int = 10) -> None:
        super().__init__()
        self.every_n_steps = every_n_steps
        self.enabled = True
        self.made: Board | None = None
        self.watch = Stopwatch()
        self.begun = 0  # steps that were done before
        self.evaluated = 0  # batches of the running evaluation

    @property
    def board(self) -> Board | None:
        """The board to draw on; None on ranks other than 0, and while Lightning has switched it off."""
        return self.made if self.enabled else None

    @property
    def is_enabled(self) -> bool:
        """Whether this process shows anything: on rank 0, unless bars are switched off."""
        return self.board is not None

    def enable(self) -> None:
        """Shows bars and lines again after `disable`."""
        self.enabled = True

    def disable(self) -> None:
        """Shows neither bars nor lines until `enable`; what is logged goes on."""
        self.enabled = False

    def print(self, *args: Any, **kwargs: Any) -> None:
        """Prints above the bars where they are drawn, and else as Python's own `print` does, with its arguments."""
        if self.board is not None and self.board.live is not None:
            self.board.print(kwargs.get("sep", " ").join(map(str, args)), kwargs.get("end", "\n"))
        else:
            print(*args, **kwargs)

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Makes the board, on rank 0 alone."""
        super().setup(trainer, pl_module, stage)
        self.made = Board(self.every_n_steps) if trainer.is_global_zero else None

    def on_train_start(self, trainer: L.Trainer, pl_module: Any) -> None:
        """Starts the stopwatch, and notes the steps that are done already."""
        self.watch.restart(pl_module.timer.read())
        self.begun = _steps(trainer, pl_module)[0]

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: Any) -> None:
        """Draws the bars, which are hidden between epochs; that of steps begins with those that are done already."""
        if self.board is not None:
            if "step" not in self.board.tasks:  # not before: `GoOn` knows the limit of steps only by now
                self.board.begin("step", _steps(trainer, pl_module)[1], self.begun)
            self.board.show()

    def on_train_batch_start(self, trainer: L.Trainer, pl_module: Any, batch: Any, batch_idx: int) -> None:
        """Draws the bars where a run goes on amid an epoch, whose beginning Lightning then leaves out."""
        self.on_train_epoch_start(trainer, pl_module)

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Moves the bar, with the latest metrics and the tokens per second since it was last moved."""
        done = _steps(trainer, pl_module)[0]
        if self.board is not None and self.board.due("step", done):
            lap = self.watch.lap(pl_module.timer.read())
            metrics = trainer.callback_metrics
            numbers = [f"{label} {metrics[name]:.2f}" for name, label in SHOWN.items() if name in metrics]
            if "rollout" in lap.phases:
                numbers.append(f"{lap.phases['rollout'].sampled / lap.seconds:.0f} tokens/s")
            self.board.advance("step", done, "  ".join(numbers))

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: Any) -> None:
        """Hides the bars until the next epoch."""
        if self.board is not None:
            self.board.hide()  # between epochs Lightning logs past the console

    def on_train_end(self, trainer: L.Trainer, pl_module: Any) -> None:
        """Ends the drawing and leaves the last state of the bars on the terminal."""
        if self.board is not None:
            self.board.hide(keep=True)

    def on_validation_start(self, trainer: L.Trainer, pl_module: Any) -> None:
        """Begins a bar over all validation batches; Lightning's sanity check has none."""
        if not trainer.sanity_checking:
            self._begin(trainer, "validation", trainer.num_val_batches)

    def on_validation_batch_end(
        self, trainer: L.Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        """Moves the bar of the validation by one batch."""
        if not trainer.sanity_checking:
            self._advance("validation")

    def on_validation_end(self, trainer: L.Trainer, pl_module: Any) -> None:
        """Removes the bar, and restarts the stopwatch, so that the evaluation does not count as training."""
        self._end(trainer, "validation")
        self.watch.restart(pl_module.timer.read())

    def on_test_start(self, trainer: L.Trainer, pl_module: Any) -> None:
        """Begins a bar over all test batches."""
        self._begin(trainer, "test", trainer.num_test_batches)

    def on_test_batch_end(self, *args: Any, **kwargs: Any) -> None:
        """Moves the bar of the test by one batch."""
        self._advance("test")

    def on_test_end(self, trainer: L.Trainer, pl_module: Any) -> None:
        """Removes the bar of the test, and ends the drawing."""
        self._end(trainer, "test")

    def on_exception(self, trainer: L.Trainer, pl_module: Any, exception: BaseException) -> None:
        """Ends the drawing, so that the message of the error appears below the bars' last state."""
        if self.made is not None:
            self.made.hide(keep=True)

    def _begin(self, trainer: L.Trainer, name: str, batches: Any) -> None:
        self.evaluated = 0
        if self.board is not None:
            self.board.begin(name, _whole(sum(batches)))
            self.board.show()

    def _advance(self, name: str) -> None:
        self.evaluated += 1
        if self.board is not None and self.board.due(name, self.evaluated):
            self.board.advance(name, self.evaluated)

    def _end(self, trainer: L.Trainer, name: str) -> None:
        if self.board is not None:
            self.board.end(name)
            if trainer.state.fn != "fit":
                self.board.hide()


def _steps(trainer: L.Trainer, module: Any) -> tuple[int, int | None]:
    """Steps done and, where it is known, steps in all."""
    epochs = trainer.max_epochs if trainer.max_epochs and trainer.max_epochs > 0 else math.inf
    batches = epochs * trainer.num_training_batches
    if trainer.max_steps > 0:  # updates, of which a batch makes these at most
        return trainer.global_step, _whole(min(trainer.max_steps, batches * module.mini_batches * module.epochs))
    return trainer.fit_loop.total_batch_idx + 1, _whole(batches)


def _whole(number: float) -> int | None:
    return int(number) if math.isfinite(number) else None
