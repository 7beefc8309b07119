"""Follows the same questions through a run: their groups' boxes, crops and answers, on one page and in the loggers."""

from typing import Any

import lightning as L

from mgpo.callbacks.fixed_questions import FixedQuestions
from mgpo.callbacks.folder import goes_on, run_folder
from mgpo.callbacks.panels import forgets, post
from mgpo.gallery.data import Gallery, snapshot
from mgpo.gallery.page import read_page, write_page
from mgpo.rollout.fitting import in_process
from mgpo.types import Question
from mgpo.utils.collectives import share_objects

NAME = "gallery.html"


class GroundingGallery(L.Callback):
    """Rolls out a group for the same questions every so often, with the same draws, so that only the weights differ.

    The page is written anew after each look; open it while the run goes on. The rollouts train nothing.

    Args:
        every_n_steps: Optimiser updates between two looks; there is one at the start and at each epoch's end too.
        questions: How many, spread evenly over the validation sources; 0 draws nothing.
        rollouts: Of each question.
    """

    def __init__(self, every_n_steps: int = 40, questions: int = 12, rollouts: int = 4) -> None:
        self.every_n_steps, self.fixed, self.rollouts = every_n_steps, FixedQuestions(questions), rollouts
        self.gallery = Gallery()
        self.looked = self.saved = -1  # the step of the latest look, here and when the checkpoint was saved
        self.shown: set[int] = set()  # steps whose pictures the loggers have had before this run went on
        self.begun = 0  # the step from which it went on
        self.sent: set[tuple[str, str]] = set()  # questions of this rank whose pictures the gallery has

    def state_dict(self) -> dict[str, Any]:
        """The step of the latest look, at which a run that goes on need not look again."""
        return {"looked": self.looked}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Keeps the step of the checkpoint's latest look; whether its page is there is known once training starts."""
        self.saved = state_dict["looked"]

    def on_train_start(self, trainer: L.Trainer, pl_module: Any) -> None:
        """Looks at the weights as they are; a run that goes on in its own folder goes on with its page instead."""
        there = self.saved >= 0 and goes_on(trainer) and (run_folder(trainer) / NAME).is_file()
        self.begun = trainer.global_step
        if trainer.strategy.broadcast(there):
            self.shown = set(read_page(run_folder(trainer) / NAME)["steps"]) if trainer.is_global_zero else set()
            self.looked = self.saved
            self.begin(trainer, self.looked + 1)
        else:
            self.look(trainer, pl_module)

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Looks where the step has passed a multiple of `every_n_steps` since the last look."""
        if trainer.global_step // self.every_n_steps > max(self.looked, 0) // self.every_n_steps:
            self.look(trainer, pl_module)

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: Any) -> None:
        """Looks at the weights that the epoch ends with."""
        self.look(trainer, pl_module)

    def on_validation_end(self, trainer: L.Trainer, pl_module: Any) -> None:
        """Looks at the weights that were evaluated; not in Lightning's sanity check."""
        if not trainer.sanity_checking:
            self.look(trainer, pl_module)

    def on_test_end(self, trainer: L.Trainer, pl_module: Any) -> None:
        """Looks at the weights that were tested, on the test's questions if it has its own."""
        self.look(trainer, pl_module)

    def look(self, trainer: L.Trainer, pl_module: Any) -> None:
        """Roll out this rank's share of the questions, put all shares together, write. All ranks must call."""
        step = pl_module.step
        if step == self.looked:
            return
        first, self.looked = self.looked < 0, step
        if first:
            self.begin(trainer, step)
        if not self.fixed.chosen:
            return
        samples = self.fixed.mine(trainer, pl_module.policy.resolution.full)
        pl_module.sampler.prepare(pl_module.policy)  # on all ranks, of which some may have no question
        with pl_module.under_precision(passes=in_process(pl_module.sampler)):
            rolled = pl_module.roll_out(samples, step=0, copies=self.rollouts) if samples else []
        gone = {name(t.question) for t in rolled if t.failed is not None}  # there is no crop to be shown
        rolled = [t for t in rolled if name(t.question) not in gone]
        unsent = {name(t.question) for t in rolled} - self.sent
        self.sent |= unsent
        parts = share_objects(snapshot(rolled, self.rollouts, unsent), trainer.world_size)
        if trainer.is_global_zero:
            shown = self.gallery.merge(step, parts)
            path = run_folder(trainer) / NAME
            write_page(path, self.gallery, f"{path.parent.parent.name}/{path.parent.name}")
            again = step in self.shown  # TensorBoard has forgotten the steps that are made again, others can't
            fresh = [own for own in trainer.loggers if not again or (forgets(own) and step > self.begun)]
            places = {name(question): place for place, question in enumerate(self.fixed.chosen)}
            post(fresh, step, {places[entry["split"], entry["id"]]: entry for entry in shown})

    def begin(self, trainer: L.Trainer, step: int) -> None:
        """Choose the questions; a run that goes on in its own folder goes on with its page."""
        data: Any = getattr(trainer, "datamodule", None)
        if data is not None:
            self.fixed.choose((data.test or data.val) if trainer.testing else data.val)
        if self.fixed.chosen and trainer.is_global_zero and (path := run_folder(trainer) / NAME).is_file():
            self.gallery.restore(read_page(path), step)


def name(question: Question) -> tuple[str, str]:
    """What tells a question from all others of a run."""
    return question.split, question.id
