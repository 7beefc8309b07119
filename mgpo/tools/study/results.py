"""Numbers from the reports of a study: means over seeds with their range, and paired differences."""

import csv
import json
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import mean
from typing import Any

from mgpo.callbacks.crop_swaps import NAME as COUNTERFACTUALS
from mgpo.errors import UserError
from mgpo.evaluation.report import shares
from mgpo.metrics.intervals import paired_bootstrap
from mgpo.metrics.record import Record
from mgpo.tools.study.plan import AUDIT, REPORT

Spread = dict[str, float]  # mean, low and high over seeds, n seeds


def spread(values: Sequence[float]) -> Spread:
    """Mean, lowest and highest of values, one a seed, and how many there are."""
    return {"mean": sum(values) / len(values), "low": min(values), "high": max(values), "seeds": len(values)}


class Results:
    """What the rows of a study have left behind, for some seeds; each report is read once."""

    def __init__(self, folder: Path, seeds: Sequence[int]) -> None:
        self.folder, self.seeds = folder, seeds
        self.reports: dict[str, list[dict[str, Any]]] = {}

    def row(self, name: str) -> list[dict[str, Any]]:
        """The reports of a row, one a seed."""
        if name not in self.reports:
            self.reports[name] = [json.loads(path.read_bytes()) for path in self._files(name, REPORT)]
        return self.reports[name]

    def _files(self, name: str, file: str) -> list[Path]:
        paths = [self.folder / name / f"seed-{seed}" / file for seed in self.seeds]
        return [path for path in paths if path.is_file()]  # an untrained row has but one

    def splits(self, name: str) -> list[str]:
        """The splits in a row's reports, in the order in which they appear."""
        return list(dict.fromkeys(split for report in self.row(name) for split in report["by_split"]))

    def share(self, name: str, split: str, share: str, category: str | None = None) -> Spread | None:
        """A share of a row on a split, or on the categories there that contain a text ("!" in front: do not)."""
        values = []
        for report in self.row(name):
            records = [Record(**question) for question in report["questions"]]
            judged = shares([r for r in records if r.split == split and _within(r.category, category)])[share]
            if judged:
                values.append(sum(judged) / len(judged))
        return spread(values) if values else None

    def difference(self, name: str, minus: str, split: str, category: str | None = None) -> dict[str, Any]:
        """Accuracy of one row minus another's on the same questions; the interval is over questions.

        Each question counts with its mean over the seeds of either row. Raises UserError where the same
        id is another question in the other row.
        """
        a, b = (self._by_question(row, split, category) for row in (name, minus))
        if {key[0] for key in a} & {key[0] for key in b} != {key[0] for key in a.keys() & b.keys()}:
            raise UserError(
                f"{name} and {minus} were not evaluated on the same questions of {split}; they can't be paired"
            )
        differences = [a[key] - b[key] for key in a if key in b]
        mean = sum(differences) / max(1, len(differences))
        interval = paired_bootstrap(differences) if differences else None
        return {"n": len(differences), "difference": mean, "interval": interval}

    def _by_question(self, name: str, split: str, category: str | None) -> dict[tuple[str, str, str], float]:
        right = defaultdict(list)
        for report in self.row(name):
            for question in report["questions"]:
                if question["split"] == split and _within(question["category"], category):
                    key = (question["id"], question["category"], question["truth"])
                    right[key].append(question["right"])
        return {key: sum(values) / len(values) for key, values in right.items()}

    def counterfactuals(self, name: str, split: str) -> dict[str, dict[str, Any]]:
        """By variant: accuracy, drop with an interval over questions (means over seeds), gain and harm per seed."""
        tables = [json.loads(file.read_bytes()) for file in self._files(name, COUNTERFACTUALS)]
        merged = {}
        for variant in tables[0]["by_split"][split] if tables else ():
            parts = [table["by_split"][split][variant] for table in tables]
            drops = defaultdict(list)
            for table in tables:
                for question in table["questions"]:
                    if question["split"] == split:
                        drops[question["id"]].append(int(question["crop"]) - int(question[variant]))
            means = [sum(values) / len(values) for values in drops.values()]
            merged[variant] = {
                key: spread([part[key] for part in parts]) for key in ("accuracy", "drop", "gain", "harm")
            }
            merged[variant]["interval"] = paired_bootstrap(means)
        return merged

    def audits(self, name: str) -> list[dict[str, Any]]:
        """What the audits of a row found, one a seed."""
        return [json.loads(file.read_bytes()) for file in self._files(name, AUDIT)]

    def logged(self, name: str, metric: str) -> list[tuple[list[int], list[float]]]:
        """Steps and values of a metric, one pair a seed. Raises UserError where it was never logged."""
        series = []
        for path in self._files(name, "metrics.csv"):
            with path.open(encoding="utf-8") as lines:
                rows = [row for row in csv.DictReader(lines) if row.get(metric)]
            if not rows:
                raise UserError(f"{path}: no run of {name} has logged {metric}")
            series.append(([int(row["step"]) for row in rows], [float(row[metric]) for row in rows]))
        return series

    def curve(self, name: str, metric: str, window: int) -> tuple[list[int], list[list[float]]]:
        """Steps, and the metric by seed, as a running mean over `window` logged steps.

        A seed that has not logged a step, because an update was left out, has there what it had before.
        """
        lines = [(steps, _running_mean(values, window)) for steps, values in self.logged(name, metric)]
        first, last = max(steps[0] for steps, _ in lines), min(steps[-1] for steps, _ in lines)
        steps = sorted({step for steps, _ in lines for step in steps if first <= step <= last})
        return steps, [[means[bisect_right(logged, step) - 1] for step in steps] for logged, means in lines]

    def steps_to(self, name: str, metric: str, level: float, window: int) -> list[int | None]:
        """By seed, the first step at which the running mean over `window` logged steps is at a level; None if never."""
        return [
            next((step for step, mean in zip(steps, _running_mean(values, window)) if mean >= level), None)
            for steps, values in self.logged(name, metric)
        ]

    def middle(self, name: str, metric: str, middle: Callable[[Sequence[float]], float]) -> Spread | None:
        """The mean, or whatever `middle` takes of the logged values of a run, by seed; None where there are none, as of
        groups under supervision."""
        try:
            return spread([middle(values) for _, values in self.logged(name, metric)])
        except UserError:
            return None


def _within(category: str, wanted: str | None) -> bool:
    if not wanted:
        return True
    return wanted[1:] not in category if wanted.startswith("!") else wanted in category


def _running_mean(values: Sequence[float], window: int) -> list[float]:
    return [mean(values[max(0, i - window + 1) : i + 1]) for i in range(len(values))]
