"""Answers each validation question again with something else in place of the crop, and writes what that costs."""

from functools import partial
from typing import Any

import lightning as L
from rich.box import SIMPLE_HEAD
from rich.markup import escape
from rich.table import Table

from mgpo.callbacks.folder import run_folder, stays
from mgpo.evaluation.counterfactuals import CROP, NO_TOOLS, Row, compare, counterfactuals
from mgpo.evaluation.greedy import gather
from mgpo.rollout.episodes import roll_out
from mgpo.rollout.fitting import in_process
from mgpo.utils.atomic_files import write_json
from mgpo.utils.terminal_tables import first_that_fits

NAME = "counterfactuals.json"


class Counterfactuals(L.Callback):
    """Black, a random region, the original in place of the crop, and no tools: every question is answered five times.

    Args:
        enabled: Whether to do so.
    """

    def __init__(self, enabled: bool = False) -> None:
        self.enabled = enabled
        self.rows: list[Row] = []

    def on_validation_epoch_start(self, trainer: L.Trainer, pl_module: Any) -> None:
        """Drops the rows of the evaluation before."""
        self.rows = []

    def on_validation_batch_end(
        self, trainer: L.Trainer, pl_module: Any, outputs: Any, batch: list, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        """Answers the batch again with each thing in place of the crop, and keeps a row for each question."""
        if not self.enabled or trainer.sanity_checking:
            return
        samples = pl_module.fitting(pl_module.usable(batch), pl_module.eval_sampling)
        with pl_module.under_precision(passes=in_process(pl_module.sampler)):
            if samples:
                play = partial(roll_out, pl_module.policy, pl_module.sampler)
                how = pl_module.eval_sampling, pl_module.reward, pl_module.seed
                self.rows += counterfactuals(play, pl_module.dialogue, samples, *how)

    def on_validation_end(self, trainer: L.Trainer, pl_module: Any) -> None:
        """Gathers the rows of all ranks; rank 0 logs gain and harm, and writes counterfactuals.json.

        It prints a table too, but for validations in the middle of `fit`.
        """
        if not self.enabled or trainer.sanity_checking:
            return
        rows = gather(self.rows, lambda row: (row["split"], row["id"]), trainer.world_size)
        if trainer.is_global_zero:
            splits = {
                split: compare([r for r in rows if r["split"] == split]) for split in {r["split"]: 0 for r in rows}
            }
            shares = {
                f"{split}/crop_{name}": table[NO_TOOLS][name] / table[NO_TOOLS]["n"]
                for split, table in splits.items()
                for name in ("gain", "harm")
            }
            for logger in trainer.loggers:
                logger.log_metrics(shares, pl_module.step)
            path = run_folder(trainer) / NAME
            write_json(path, {"by_split": splits, "questions": rows})
            if trainer.state.fn != "fit":
                print(first_that_fits(_table(splits, between) for between in (" ", "\n")))
                if stays(trainer):
                    print(f"counterfactuals: {path}")

    on_test_epoch_start = on_validation_epoch_start
    on_test_batch_end = on_validation_batch_end
    on_test_end = on_validation_end


def _table(splits: dict[str, dict[str, dict[str, Any]]], between: str = " ") -> Table:
    """The drop's interval stands behind it, or below it."""
    table = Table(title="in place of the crop", box=SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    table.add_column("shown")
    for name in ("accuracy", "drop", "right only\nwith the crop", "right only\nwithout"):
        table.add_column(name, justify="right")
    for split, variants in splits.items():
        for name, numbers in variants.items():
            low, high = numbers["drop_interval"]
            drop = "" if name == CROP else f"{numbers['drop']:.3f}{between}({low:.3f} to {high:.3f})"
            gain, harm = ("", "") if name == CROP else (str(numbers["gain"]), str(numbers["harm"]))
            table.add_row(escape(f"{split}: {name}"), f"{numbers['accuracy']:.3f}", drop, gain, harm)
    return table
