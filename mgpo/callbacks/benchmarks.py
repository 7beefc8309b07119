"""Scores each benchmark by its own rules, and puts the run beside the published figures."""

import json
from typing import Any

import lightning as L

from mgpo.callbacks.folder import goes_on, run_folder, stays
from mgpo.data.base import split_of
from mgpo.evaluation.published import as_markdown, as_text, cited, part_lines, published
from mgpo.evaluation.scoring import summary
from mgpo.utils.atomic_files import write_json, write_text

NAME = "benchmarks"


class BenchmarkTable(L.Callback):
    """Writes benchmarks.json and benchmarks.md into the run's folder and, but for validations in the middle of `fit`,
    prints the table.

    The columns are the benchmarks' `title`s; a run has a row by the rules here, and one by each harness's.
    After `fit`, the rows from before training stand above them. A score over fewer questions than the benchmark
    has says over how many, in its cell. Scores and published figures are those of the sources' own classes.

    Args:
        row: What the run is called.
    """

    def __init__(self, row: str = "this run") -> None:
        self.row = row
        self.runs: dict[str, dict[str, float | None]] = {}
        self.counts: dict[str, dict[str, str]] = {}  # of questions, where not all were scored

    def on_load_checkpoint(self, trainer: L.Trainer, pl_module: Any, checkpoint: dict[str, Any]) -> None:
        """Takes up the rows of benchmarks.json, where the run goes on in the folder of its checkpoint."""
        if goes_on(trainer) and (path := run_folder(trainer) / f"{NAME}.json").is_file():
            report = json.loads(path.read_bytes())
            self.runs, self.counts = report["rows"], report["counts"]

    def on_validation_end(self, trainer: L.Trainer, pl_module: Any) -> None:
        """Scores the validation's benchmarks, writes both files and prints the table."""
        self._write(trainer, pl_module, trainer.datamodule.val)  # pyright: ignore[reportAttributeAccessIssue]

    def on_test_end(self, trainer: L.Trainer, pl_module: Any) -> None:
        """Scores the test's benchmarks, or the validation's where there are no others, in the same way."""
        data = trainer.datamodule  # pyright: ignore[reportAttributeAccessIssue]
        self._write(trainer, pl_module, data.test or data.val)

    def _write(self, trainer: L.Trainer, pl_module: Any, sources: list[Any]) -> None:
        if trainer.sanity_checking or not trainer.is_global_zero:
            return
        benchmarks = {}
        for source in sources:
            split = split_of(source)
            records = [record for record in pl_module.records if record.split == split]
            title = getattr(source, "title", "")
            title = title if title and title not in benchmarks else split
            of = getattr(source, "total", len(source))
            if title in benchmarks:  # of the same split, whose records are all in there
                benchmarks[title]["of"] += of
                continue
            benchmarks[title] = {"split": split, "of": of, **summary(source, records)}
        self._add_rows(benchmarks, pl_module.step)
        report = {
            "benchmarks": benchmarks,
            "rows": self.runs,
            "counts": self.counts,
            "published": {"source": cited(sources), "rows": published(sources)},
            "step": pl_module.step,
        }
        path = run_folder(trainer) / f"{NAME}.json"
        table = as_markdown(self.runs, self.counts, sources)
        write_json(path, report)
        write_text(path.with_suffix(".md"), f"{table}\nPublished figures: {cited(sources)}.\n")
        if trainer.state.fn != "fit":
            where = f"benchmarks: {path}\n" if stays(trainer) else ""
            print(as_text(self.runs, self.counts, sources) + _details(benchmarks) + where, end="")

    def _add_rows(self, benchmarks: dict[str, dict[str, Any]], step: int) -> None:
        name = f"{self.row}, step {step}" if step else self.row
        self.runs[name] = {title: _percent(numbers["value"]) for title, numbers in benchmarks.items()}
        fewer = {title: _count(numbers) for title, numbers in benchmarks.items() if numbers["n"] < numbers["of"]}
        self.counts[name] = fewer
        for harness in sorted({h for numbers in benchmarks.values() for h in numbers["harness"]}):
            row = f"{name}, read as {harness} does"
            self.runs[row] = {
                title: _percent(numbers["harness"][harness]["value"])
                for title, numbers in benchmarks.items()
                if harness in numbers["harness"]
            }
            self.counts[row] = {title: count for title, count in fewer.items() if title in self.runs[row]}


def _percent(value: float | None) -> float | None:
    return None if value is None else 100 * value


def _count(numbers: dict[str, Any]) -> str:
    return f"{numbers['n']} of {numbers['of']}" if numbers["n"] < numbers["of"] else str(numbers["n"])


def _details(benchmarks: dict[str, dict[str, Any]]) -> str:
    """A line for each benchmark's parts and one for each harness that judges some questions otherwise."""
    lines = []
    for title, numbers in benchmarks.items():
        lines.append(f"{title} ({_count(numbers)}): {part_lines(numbers['parts'])}")
        for harness, other in numbers["harness"].items():
            if other["flips"]:
                first = other["first"][0]
                lines.append(
                    f"  {harness} judges {other['flips']} otherwise, of which {other['right_by_ours_only']} are right "
                    f"here; {first['id']}: here {first['ours']}, there {first['theirs']}, truth {first['truth']} "
                    f"({first['why']})"
                )
    return "".join(f"{line}\n" for line in lines)
