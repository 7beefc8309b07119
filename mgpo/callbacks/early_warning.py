"""Says while a run is going on that it goes wrong, and what to try."""

import json
from dataclasses import asdict
from typing import Any

import lightning as L

from mgpo.callbacks.folder import goes_on, run_folder
from mgpo.monitoring.alarms import RULES, Alarm, Alarms, Limits
from mgpo.monitoring.curves import Curve
from mgpo.monitoring.image_reliance import image_reliance
from mgpo.utils.atomic_files import write_text, writing

NAME = "warnings.jsonl"
SAID = "warnings"  # in a checkpoint: how many lines that file has


class EarlyWarning(L.Callback):
    """Watches the `train/` curves; `mgpo.monitoring.alarms` holds the rules.

    A warning is printed and written into `warnings.jsonl` of the run directory when it begins, and
    `warning/<kind>` is 1 from then on until things have been calm for a while. It also logs
    `train/image_reliance`: how much likelier the true pictures make the last replies, in nats per token.
    None of it touches weights, gradients or random numbers.

    Args:
        limits: From where on something is wrong.
        every_n_steps: Optimiser steps between two measurements of how much the pictures matter; 0 never measures.
        rows: Trajectories in one of them.
    """

    def __init__(self, limits: Limits = Limits(), every_n_steps: int = 10, rows: int = 16) -> None:
        self.alarms = Alarms(limits)
        self.every_n_steps, self.rows = every_n_steps, rows
        self.measured = self.said = 0  # the step; warnings in the file
        self.noted: dict[str, float] = {}  # what others have measured since the last step

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Measures what is due, applies the rules to the step's metrics, and logs, prints and writes what they find."""
        metrics = pl_module.published | self._measure(trainer, pl_module) | self.noted
        self.noted = {}
        if not trainer.is_global_zero:
            return
        for alarm in self.alarms.step(trainer.global_step, metrics):
            self._say(alarm, trainer, pl_module)
        states = {f"warning/{kind}": float(kind in self.alarms.sounding) for kind in RULES}
        pl_module.log_dict(states, batch_size=1, rank_zero_only=True)

    def note(self, metrics: dict[str, float]) -> None:
        """Take in what another callback has measured, with the metrics of the step that ends next."""
        self.noted |= metrics

    def on_load_checkpoint(self, trainer: L.Trainer, pl_module: Any, checkpoint: dict[str, Any]) -> None:
        """Cuts warnings.jsonl back to the lines that it had at the checkpoint, where the run goes on in that folder."""
        if goes_on(trainer) and (path := run_folder(trainer) / NAME).is_file():
            self.said = checkpoint.get(SAID, 0)
            lines = path.read_text("utf-8").splitlines(keepends=True)
            write_text(path, "".join(lines[: self.said]))

    def on_save_checkpoint(self, trainer: L.Trainer, pl_module: Any, checkpoint: dict[str, Any]) -> None:
        """Puts into the checkpoint how many lines warnings.jsonl has."""
        checkpoint[SAID] = self.said

    def state_dict(self) -> dict[str, Any]:
        """The curves so far, the warnings that have not ended, and the step of the last measurement."""
        curves = {name: asdict(curve) for name, curve in self.alarms.curves.items()}
        sounding = dict(self.alarms.sounding)
        return {"curves": curves, "sounding": sounding, "measured": self.measured, "noted": dict(self.noted)}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Goes on with the curves and warnings of `state_dict`, as if nothing had come between."""
        self.alarms.curves.update({name: Curve(**curve) for name, curve in state_dict["curves"].items()})
        self.alarms.sounding, self.measured = dict(state_dict["sounding"]), state_dict["measured"]
        self.noted = dict(state_dict["noted"])

    def _measure(self, trainer: L.Trainer, pl_module: Any) -> dict[str, float]:
        """Every rank passes its own rows, so that none waits for another where weights are sharded."""
        due = self.every_n_steps and trainer.global_step - self.measured >= self.every_n_steps
        if not due or not pl_module.rolled_out:
            return {}
        self.measured = trainer.global_step
        stride = max(1, len(pl_module.rolled_out) // self.rows)  # not one question's group alone
        rows = pl_module.rolled_out[::stride][: self.rows]
        with pl_module.under_precision():
            value = image_reliance(pl_module.policy, rows, pl_module.sampling.temperature, pl_module.micro_batch_tokens)
        pl_module.log("train/image_reliance", value, batch_size=1, rank_zero_only=True)
        return {"image_reliance": value}

    def _say(self, alarm: Alarm, trainer: L.Trainer, pl_module: Any) -> None:
        pl_module.print(f"warning at step {trainer.global_step}: {alarm.text}")
        row = {"step": trainer.global_step, **asdict(alarm)}
        path = run_folder(trainer) / NAME
        with writing(path), path.open("a", encoding="utf-8") as lines:
            lines.write(json.dumps(row) + "\n")
        self.said += 1
