"""Published figures on whether crops are used, what of an audit stands beside each, and how far that compares."""

from collections.abc import Callable
from typing import NamedTuple

from mgpo.evaluation.audit import ALONE
from mgpo.evaluation.audit_summary import Summary
from mgpo.metrics import CROP, NO_TOOLS


class Published(NamedTuple):
    """A measure, its figures in percent by model, the same measure here, and what is comparable."""

    measure: str
    figures: dict[str, float]
    here: Callable[[Summary], float | None]
    compares: str


PUBLISHED = (
    Published(
        "the crop alone answers (V*)",
        {"Qwen2.5-VL-7B": 47.1, "GRPO": 50.2, "MGPO": 65.2},
        lambda summary: summary["kinds"].get(ALONE, {}).get("accuracy"),
        "MGPO, arXiv 2507.05920: the same question of the same crop; other questions.",
    ),
    Published(
        "a box holds the place (TreeBench)",
        {"Qwen2.5-VL-7B": 50.2, "GRPO": 51.0, "MGPO": 51.3},
        lambda summary: summary["rates"]["grounded"]["share"],
        "HART, arXiv 2602.23615, table 6: the same rule, more than 0.3 of the true place covered; there that is "
        "people's boxes, here the squares around the marks.",
    ),
    Published(
        "right, yet no box holds it (Visual CoT)",
        {"Qwen2.5-VL-7B": 36.5, "InternVL3-8B": 63.8},
        lambda summary: summary["rates"]["right_ungrounded"]["share"],
        "HART, table 1, untrained models: the same rule; its questions may be answered from the picture at its cap, "
        "here only those with large marks.",
    ),
    Published(
        "of those solved with tools, without too",
        {"DeepEyesV2": 93.0, "Thyme": 96.0},
        lambda summary: summary["rates"]["without_tools"]["share"],
        "arXiv 2606.02357: there without tools in at least one of several settings, here in one; agents with more "
        "tools than a crop.",
    ),
    Published(
        "accuracy with crops (VisualNeedle)",
        {"best of nine": 56.0},
        lambda summary: summary["kinds"][CROP]["accuracy"],
        "VisualNeedle, arXiv 2605.26380, abstract: crops asked for at will; here those questions with one.",
    ),
    Published(
        "accuracy without (VisualNeedle)",
        {"nine models, below": 20.0},
        lambda summary: summary["kinds"].get(NO_TOOLS, {}).get("accuracy"),
        "The same abstract; its questions are made to need a crop, so its drop is no measure for others.",
    ),
)
