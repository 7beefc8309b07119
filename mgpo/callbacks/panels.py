"""The gallery's questions in W&B, as a table with W&B's own boxes, and in TensorBoard, as pictures with frames."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from lightning.pytorch.loggers import Logger, TensorBoardLogger, WandbLogger

from mgpo.gallery.data import PICTURE, region_key
from mgpo.show import drawn, from_uri

COLUMNS = ["step", "split", "category", "question", "truth", "picture", "crop", "answers", "reward", "valid_box"]
LABELS = {0: "wrong", 1: "right", 2: "not usable"}
KEY = "gallery"


def post(loggers: Sequence[Logger], step: int, questions: Sequence[dict[str, Any]]) -> None:
    """Show one look's questions wherever pictures can be shown; other loggers are left alone."""
    for logger in loggers:
        if isinstance(logger, WandbLogger):
            logger.log_table(KEY, columns=COLUMNS, data=[_row(question, step) for question in questions], step=step)
        elif isinstance(logger, TensorBoardLogger):
            for place, question in enumerate(questions):
                pixels = np.asarray(
                    drawn(from_uri(question["images"][PICTURE]), question["rollouts"], question["size"])
                )
                logger.experiment.add_image(f"{KEY}/{place:03d}", pixels, step, dataformats="HWC")


def _row(question: dict[str, Any], step: int) -> list[Any]:
    """One question's group as a row of the table."""
    import wandb  # slow to import, and only this needs it

    rollouts = question["rollouts"]
    picture = wandb.Image(
        from_uri(question["images"][PICTURE]),
        boxes={"rollouts": {"box_data": _boxes(question), "class_labels": LABELS}},
    )
    cut = next((r["regions"][-1] for r in rollouts if r["regions"]), None)
    crop = wandb.Image(from_uri(question["images"][region_key(cut)][0])) if cut else None
    valid = [rollout["valid_box"] for rollout in rollouts if rollout["valid_box"] is not None]
    return [
        step, question["split"], question["category"], question["text"], question["truth"], picture, crop,
        ", ".join(str(rollout["answer"]) for rollout in rollouts), _mean([r["reward"] for r in rollouts]), _mean(valid),
    ]  # fmt: skip


def _boxes(question: dict[str, Any]) -> list[dict[str, Any]]:
    """Each rollout's first box in W&B's form: shares of the picture's sides."""
    width, height = question["size"]
    boxes = []
    for rollout in question["rollouts"]:
        named = next((box for box in rollout["named"] if box is not None), None)
        if named is None:
            continue
        (x1, x2), (y1, y2) = (
            sorted(_share(named[i], width) for i in (0, 2)),
            sorted(_share(named[i], height) for i in (1, 3)),
        )
        boxes.append(
            {
                "position": {"minX": x1, "minY": y1, "maxX": x2, "maxY": y2},
                "class_id": 2 if not rollout["valid_box"] else int(rollout["right"]),
                "box_caption": str(rollout["answer"]),
                "scores": {"reward": rollout["reward"]},
            }
        )
    return boxes


def _share(value: float, side: int) -> float:
    return min(max(value / side, 0.0), 1.0)


def _mean(values: Sequence[float]) -> float | None:
    return sum(values) / len(values) if values else None
