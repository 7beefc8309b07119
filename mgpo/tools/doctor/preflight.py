"""The checks before the first step, as a callback, and how they are told."""

from collections.abc import Sequence
from typing import Any, Literal

import lightning as L
from rich.box import SIMPLE_HEAD
from rich.markup import escape
from rich.table import Table
from torch.distributed.tensor import DTensor

from mgpo.errors import UserError
from mgpo.tools.doctor.case import Result
from mgpo.tools.doctor.examine import examine
from mgpo.utils.terminal_tables import with_sentences

SIGNS = {True: "passed", False: "FAILED", None: "skipped"}


class Preflight(L.Callback):
    """Runs all checks once the weights are there: before an evaluation that precedes training, or the first step.

    They take no exchange between processes, so the first one makes them and tells the others what came of it.
    Sharded weights would take one, as would an engine that several processes share; they are not examined.

    Args:
        mode: What a failure does: stop the run with one sentence, or warn; "only" stops after the checks anyway.
        config: The resolved configuration, from which memory is planned.
    """

    def __init__(self, mode: Literal["stop", "warn", "only"] = "stop", config: dict[str, Any] | None = None) -> None:
        self.mode, self.config = mode, config
        self.done = False

    def on_validation_start(self, trainer: L.Trainer, pl_module: Any) -> None:
        """Makes the checks before an evaluation that precedes training, unless they were made."""
        if not self.done:
            pl_module.configure_optimizers()  # what can't be made is told before the evaluation, not behind it
        self._once(trainer, pl_module)

    def on_train_start(self, trainer: L.Trainer, pl_module: Any) -> None:
        """Makes the checks before the first step, unless they were made; in mode "only" training then stops."""
        self._once(trainer, pl_module)
        trainer.should_stop = trainer.should_stop or self.mode == "only"

    def _once(self, trainer: L.Trainer, pl_module: Any) -> None:
        if self.done:
            return
        self.done = True
        if reason := _out_of_reach(trainer, pl_module):
            pl_module.print(f"preflight: skipped, because {reason}")
            return
        verdict = self._examine(trainer, pl_module) if trainer.is_global_zero else None
        verdict = trainer.strategy.broadcast(verdict)
        if verdict is not None:
            raise UserError(verdict)

    def _examine(self, trainer: L.Trainer, pl_module: Any) -> str | None:
        """Why the run must not go on."""
        try:
            results = examine(pl_module, trainer.datamodule, self.config)  # pyright: ignore[reportAttributeAccessIssue]
        except UserError as error:
            return str(error)
        failed = [result for result in results if result.passed is False]
        if self.mode == "only" or failed:
            print(table(results))
        else:
            print(summary(results))
        return verdict(failed) if failed and self.mode != "warn" else None


def _out_of_reach(trainer: L.Trainer, pl_module: Any) -> str | None:
    """Why one process alone can't make the checks."""
    if any(isinstance(p, DTensor) for p in pl_module.policy.parameters()):
        return "weights are sharded over devices; `mgpo doctor` examines them on one"
    if trainer.world_size > 1 and not pl_module.sampler.exact:
        return "several processes share an engine"
    return None


def table(results: Sequence[Result], width: int | None = None) -> str:
    """A row for each check: how it went, and what that means."""
    made = Table("check", "", "which means", title="preflight", box=SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    for result in results:
        made.add_row(escape(result.name), SIGNS[result.passed], escape(result.text))
    return with_sentences(made, width)


def summary(results: Sequence[Result]) -> str:
    """One line on checks of which none failed: how many passed, and which were skipped."""
    skipped = [result.name for result in results if result.passed is None]
    passed = f"preflight: {len(results) - len(skipped)} checks passed"
    return f"{passed}, skipped: {', '.join(skipped)}" if skipped else passed


def verdict(failed: Sequence[Result]) -> str:
    """One sentence: what failed first, how much else, and what to do."""
    first, others = failed[0], ", ".join(result.name for result in failed[1:])
    also = f" (and {others})" if others else ""
    advice = "mend it, or go on with --preflight warn or off"
    return f"preflight: {first.name} failed{also}: {first.text}; {advice}"
