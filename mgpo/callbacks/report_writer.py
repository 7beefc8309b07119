"""Writes report.json (the last evaluation of a run and, after `fit`, the one before it)."""

import json
import subprocess
from pathlib import Path
from typing import Any

import lightning as L
import yaml

from mgpo.callbacks.folder import goes_on, run_folder, stays
from mgpo.evaluation.report import Summary, differences, format_report
from mgpo.metrics.record import Record
from mgpo.utils.atomic_files import write_json

NAME = "report.json"


class ReportWriter(L.Callback):
    """Writes into the run directory: the first and the last summary of a run."""

    def __init__(self) -> None:
        self.before: Summary | None = None

    def on_load_checkpoint(self, trainer: L.Trainer, pl_module: Any, checkpoint: dict[str, Any]) -> None:
        """Takes up the summary from before training, where the run goes on in the folder of its checkpoint."""
        if goes_on(trainer) and (path := run_folder(trainer) / NAME).is_file():
            report = json.loads(path.read_bytes())
            self.before = report if report["step"] == 0 else report.get("before")

    def on_validation_end(self, trainer: L.Trainer, pl_module: Any) -> None:
        """Writes report.json: summary, questions' records, configuration, commit, the summary from before training."""
        if trainer.sanity_checking or not trainer.is_global_zero:
            return
        report: dict[str, Any] = {**pl_module.summary, "step": pl_module.step}
        if pl_module.step == 0:
            self.before = report
        elif self.before is not None:
            report["before"] = self.before
            if trainer.state.fn != "fit":
                earlier = [Record(**question) for question in self.before["questions"]]
                gained = differences(pl_module.records, earlier)
                print(format_report(pl_module.summary, self.before, gained))
        report["questions"] = [record.as_row() for record in pl_module.records]
        folder = run_folder(trainer)
        config = folder / "config.yaml"
        report["commit"] = commit()
        report["config"] = yaml.safe_load(config.read_bytes()) if config.is_file() else None
        write_json(folder / NAME, report)
        if trainer.state.fn != "fit" and stays(trainer):
            print(f"report: {folder / NAME}")

    on_test_end = on_validation_end


def commit() -> str:
    """The short hash of this package's commit; empty where it is no checkout, or git is missing."""
    command = ["git", "-C", str(Path(__file__).parent), "rev-parse", "--short", "HEAD"]
    try:
        return subprocess.run(command, capture_output=True, text=True).stdout.strip()
    except FileNotFoundError:
        return ""
