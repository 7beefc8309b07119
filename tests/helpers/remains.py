"""What a run leaves behind, and what of it differs between two runs."""

import csv
import json
from collections.abc import Iterator

import pyarrow.parquet as pq
import torch

from mgpo.checkpoints import sharded as shards
from mgpo.gallery.page import read_page


def left(folder) -> Iterator[tuple[str, object]]:
    """What a run has left behind, by name."""
    (path,) = folder.glob("runs/mgpo/*/checkpoints/trained.ckpt")
    run = path.parent.parent
    whole = [torch.empty(0)] * 1000  # as many parameters as any model here has, none of them cut
    checkpoint = torch.load(path, weights_only=True) if path.is_file() else shards.load(path, {}, whole)
    yield "weights", checkpoint["state_dict"]
    yield "optimiser", [state["state"] for state in checkpoint["optimizer_states"]]
    yield "scheduler", checkpoint["lr_schedulers"]
    with (run / "metrics.csv").open() as lines:
        rows = list(csv.DictReader(lines))
    yield "metrics", [{k: v for k, v in row.items() if not k.startswith(("speed/", "memory/"))} for row in rows]
    rows = [row for path in (run / "rollouts").glob("*.parquet") for row in pq.read_table(path).to_pylist()]
    yield "rollouts", sorted(json.dumps({**row, "run": ""}, default=str, sort_keys=True) for row in rows)
    yield "warnings", (run / "warnings.jsonl").read_text() if (run / "warnings.jsonl").exists() else ""
    report = json.loads((run / "report.json").read_text()) if (run / "report.json").exists() else {}
    yield "report", {name: value for name, value in report.items() if name != "config"}
    page = read_page(run / "gallery.html")
    yield "page", [page["steps"], page["questions"]]
    yield "files", sorted(str(path.relative_to(run)) for path in run.rglob("*") if path.name.endswith(".unfinished"))


def equal(a, b) -> bool:
    """Bit for bit."""
    if isinstance(a, torch.Tensor):
        return isinstance(b, torch.Tensor) and a.dtype == b.dtype and torch.equal(a, b)
    if isinstance(a, dict):
        return isinstance(b, dict) and a.keys() == b.keys() and all(equal(a[key], b[key]) for key in a)
    if isinstance(a, list):
        return isinstance(b, list) and len(a) == len(b) and all(map(equal, a, b))
    return a == b or (a != a and b != b)


def differences(folder, reference) -> list[str]:
    return [name for (name, a), (_, b) in zip(left(folder), left(reference), strict=True) if not equal(a, b)]
