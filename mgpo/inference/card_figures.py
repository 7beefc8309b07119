"""What a model card says of the run that made the model: figures with their intervals, and how it was trained."""

from pathlib import Path
from typing import Any

from mgpo.errors import UserError
from mgpo.utils.atomic_files import parse_json

REPORT = "report.json"  # of a run's folder
LARGEST = 500_000_000  # bytes: it holds every question of the last evaluation
COLUMNS = {"accuracy": "accuracy", "valid boxes": "valid_box_ratio", "sub-image alone": "subimage_accuracy"}
# By their place in a configuration, as far as it has them; no paths, which are of no use elsewhere.
KEYS = (
    "model.policy.class_path", "model.policy.init_args.max_pixels", "model.policy.init_args.crop_max_pixels",
    "model.policy.init_args.lora.rank", "model.dialogue.class_path", "model.dialogue.init_args.turns",
    "model.reward.class_path", "model.supervised", "model.group_size", "model.objective.surrogate",
    "model.objective.kl_weight", "model.optimizer.class_path", "model.optimizer.init_args.lr",
    "model.sampling.temperature", "model.seed", "data.train.class_path", "data.batch_size", "trainer.max_epochs",
    "trainer.precision",
)  # fmt: skip
LONGEST = 120  # characters of a value


def figures(run: Path | None, step: int | None = None) -> str:
    """The sections of a card that come from a run's folder, in Markdown; nothing where it has no report.

    Args:
        run: That folder.
        step: Updates after which the model was saved; the figures of any other step are not its own, and left out.

    Raises:
        UserError: If the report can't be read.
    """
    if run is None or not (run / REPORT).is_file():
        return ""
    try:
        if (run / REPORT).stat().st_size > LARGEST:
            raise ValueError
        report = parse_json((run / REPORT).read_text(encoding="utf-8"))
        before = (report.get("before") or {}).get("by_split", {})
        rows = [_row(split, part, before.get(split, {})) for split, part in report["by_split"].items()]
        reported, commit = int(report["step"]), str(report.get("commit") or "")
        settings = [(key, found) for key in KEYS if (found := _at(report.get("config"), key)) is not None]
    except (ValueError, LookupError, TypeError, AttributeError):
        raise UserError(f"{run / REPORT} can't be read as a run's report; move it away to export without it") from None
    head = f"| split | questions | {' | '.join(COLUMNS)} |\n|---|---|{'---|' * len(COLUMNS)}"
    reached = f"on the run's own questions; in brackets the 95 % interval.\n\n{head}\n" + "\n".join(rows)
    if step is None:
        step = reported
    elif step != reported:
        reached = f"and not evaluated: the run's report is of {reported:,} updates."
    made = f", with mgpo at commit {_cell(commit)}" if commit else ""
    return (
        f"## What it reaches\n\nAfter {step:,} optimiser updates, {reached}"
        f"\n\n## How it was trained\n\nBy these settings{made}:\n\n"
        "| key | value |\n|---|---|\n" + "\n".join(f"| `{key}` | {_cell(value)} |" for key, value in settings) + "\n\n"
    )


def _row(split: str, after: dict[str, Any], before: dict[str, Any]) -> str:
    cells = [_share(after, before, name) for name in COLUMNS.values()]
    return f"| {_cell(split)} | {int(after['n'])} | {' | '.join(cells)} |"


def _share(after: dict[str, Any], before: dict[str, Any], name: str) -> str:
    if after.get(name) is None:
        return "–"
    low, high = after[f"{name}_interval"]
    first = "" if before.get(name) is None else f", before {before[name]:.3f}"
    return f"{after[name]:.3f} ({low:.2f}–{high:.2f}){first}"


def _at(config: Any, key: str) -> Any:
    for part in key.split("."):
        config = config.get(part) if isinstance(config, dict) else None
    return config


def _cell(value: Any) -> str:
    """On one line, and nothing that Markdown would take for anything else."""
    text = " ".join(str(value).split())[:LONGEST]
    return "".join(f"\\{sign}" if sign in "|`<>[]*\\" else sign for sign in text)
