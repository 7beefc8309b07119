"""MME-RealWorld: the rows that its paper prints (arXiv 2408.13257)."""

from collections.abc import Sequence

from mgpo.evaluation.scoring.score import Score, share
from mgpo.metrics.record import Record

TASKS = {
    "OCR": "OCR with Complex Context",
    "RS": "Remote Sensing",
    "DT": "Diagram and Table",
    "MO": "Monitoring",
    "AD": "Autonomous_Driving",
}
ROWS = {"Perception": ("OCR", "RS", "DT", "MO", "AD"), "Reasoning": ("OCR", "DT", "MO", "AD")}


def mme_realworld(records: Sequence[Record]) -> Score:
    """Means over questions: overall, of Perception and Reasoning, and of each task in them."""
    parts: dict[str, float | None] = {}
    for side, tasks in ROWS.items():
        parts[side] = share(r.right for r in records if r.category.partition("/")[0] == side)
        for task in tasks:
            names = (f"{side}/{task}", f"{side}/{TASKS[task]}")
            parts[f"{side} {task}"] = share(r.right for r in records if r.category in names)
    return Score(len(records), share(r.right for r in records), parts)
