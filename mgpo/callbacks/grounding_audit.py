"""Follows through a run whether answers rest on the crops, on the same few validation questions."""

from functools import partial
from statistics import fmean
from typing import Any

import lightning as L

from mgpo.callbacks.early_warning import EarlyWarning
from mgpo.callbacks.fixed_questions import FixedQuestions
from mgpo.errors import UserError
from mgpo.evaluation.audit import add_margins, audit_batch
from mgpo.evaluation.audit_summary import Row, row_of
from mgpo.metrics import CROP
from mgpo.policy.base import evaluating
from mgpo.rollout.episodes import roll_out
from mgpo.rollout.in_process import InProcessSampler
from mgpo.utils.collectives import share_objects

KINDS = ("black", "random region")


class GroundingAudit(L.Callback):
    """Answers the same questions greedily with the crop, with black and with a random part in its place.

    The loggers get `audit/accuracy` and `audit/crop_rate` of all, and of those with a crop `audit/crop`, `audit/black`
    and `audit/random_region` (shares of right answers) and `audit/margin` (the mean evidence margin, in nats).
    `EarlyWarning`, where a run has it, warns when answers stop resting on the crops. `mgpo audit` measures more of a
    trained model. None of it touches weights, gradients or random numbers.

    Args:
        every_n_steps: Optimiser steps between two audits.
        questions: How many, spread evenly over the validation sources.
    """

    def __init__(self, every_n_steps: int = 40, questions: int = 16) -> None:
        if min(every_n_steps, questions) < 1:
            raise UserError("GroundingAudit takes every_n_steps and questions of at least 1")
        self.every_n_steps, self.fixed = every_n_steps, FixedQuestions(questions)
        self.measured = 0  # the step of the last audit

    def state_dict(self) -> dict[str, Any]:
        """The step of the last audit."""
        return {"measured": self.measured}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Goes on as if nothing had come between."""
        self.measured = state_dict["measured"]

    def on_train_start(self, trainer: L.Trainer, pl_module: Any) -> None:
        """Chooses the questions."""
        self.fixed.choose(getattr(getattr(trainer, "datamodule", None), "val", []))

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Makes an audit where one is due, and logs what it found. All ranks call."""
        if trainer.global_step - self.measured < self.every_n_steps or not self.fixed.chosen:
            return
        self.measured = trainer.global_step
        rows = [row for part in share_objects(self._rows(trainer, pl_module), trainer.world_size) for row in part]
        found = values(rows)
        pl_module.log_dict({f"audit/{name}": v for name, v in found.items()}, batch_size=1, rank_zero_only=True)
        for callback in (c for c in getattr(trainer, "callbacks", []) if isinstance(c, EarlyWarning)):
            callback.note({"audit_margin": found["margin"]} if "margin" in found else {})

    def _rows(self, trainer: L.Trainer, pl_module: Any) -> list[Row]:
        """Those of this rank's share of the questions."""
        policy = pl_module.policy
        samples = self.fixed.mine(trainer, policy.resolution.full)
        with pl_module.under_precision(), evaluating(policy):
            if not samples:
                return []
            audited = audit_batch(
                partial(roll_out, policy, InProcessSampler()), policy.resolution, pl_module.dialogue, samples,
                pl_module.eval_sampling, pl_module.reward, pl_module.seed, kinds=KINDS, leave_out=lambda *_: None,
            )  # fmt: skip
            add_margins(policy, audited, pl_module.answer_form, pl_module.micro_batch_tokens)
        return [row_of(one) for one in audited]


def values(rows: list[Row]) -> dict[str, float]:
    """The curves' values by name; what is over questions with a crop is missing where there is none."""
    looked = [row for row in rows if row["regions"]]
    found = {"accuracy": [row[CROP] for row in rows], "crop_rate": [bool(row["regions"]) for row in rows]}
    found |= {CROP: [row[CROP] for row in looked], "margin": [row["margin"] for row in looked]}
    for kind in KINDS:
        found[kind.replace(" ", "_")] = [row["kinds"][kind]["right"] for row in looked if kind in row["kinds"]]
    return {name: fmean(each) for name, each in found.items() if each}
