"""The gallery's questions in W&B, as a table with W&B's own boxes, and in TensorBoard, as pictures with frames."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from lightning.pytorch.loggers import Logger, TensorBoardLogger, WandbLogger

from mgpo.gallery.data import crop_key, first_box, picture_key, shown_picture
from mgpo.gallery.drawing import GROUP, drawn, explained, from_uri

COLUMNS = ["step", "split", "category", "question", "truth", "picture", "crop", "answers", "reward", "valid_box"]
LABELS = {0: "wrong", 1: "right", 2: "not usable"}
KEY = "gallery"


def post(loggers: Sequence[Logger], step: int, questions: Mapping[int, dict[str, Any]]) -> None:
    """Show one look's questions, by their places, wherever pictures can be shown; other loggers are left alone."""
    for logger in loggers:
        if isinstance(logger, WandbLogger):
            _to_wandb(logger, step, list(questions.values()))
        elif isinstance(logger, TensorBoardLogger):
            for place, question in questions.items():
                shown = explained(drawn(question, question["rollouts"]), GROUP)
                logger.experiment.add_image(f"{KEY}/{place:03d}", np.asarray(shown), step, dataformats="HWC")


def forgets(logger: Logger) -> bool:
    """Whether a logger can be told to forget the steps that a run which goes on makes again."""
    return isinstance(logger, TensorBoardLogger)


def _to_wandb(logger: WandbLogger, step: int, questions: Sequence[dict[str, Any]]) -> None:
    """A panel of pictures, whose slider moves the boxes over the steps, and a table that can be sorted and grouped."""
    from wandb import Image  # slow to import, and only this needs it

    pictures, rows = [], []
    for question in questions:
        drawing = {"box_data": _boxes(question), "class_labels": LABELS}
        number, _ = shown_picture(question, question["rollouts"])
        image = from_uri(question["images"][picture_key(number)])
        picture = Image(image, caption=question["text"], boxes={"rollouts": drawing})
        cut = next(filter(None, map(crop_key, question["rollouts"])), None)
        crop = Image(from_uri(question["images"][cut][0])) if cut else None
        pictures.append(picture)
        rows.append([step, *(question[name] for name in ("split", "category", "text", "truth")), picture, crop])
        rows[-1] += _results(question["rollouts"])
    logger.log_metrics({f"{KEY}/pictures": pictures}, step)  # pyright: ignore[reportArgumentType]
    logger.log_table(f"{KEY}/table", columns=COLUMNS, data=rows, step=step)


def _results(rollouts: Sequence[dict[str, Any]]) -> list[Any]:
    """A group's answers, mean reward and share of valid boxes."""
    valid = [rollout["valid_box"] for rollout in rollouts if rollout["valid_box"] is not None]
    answers = ", ".join(str(rollout["answer"]) for rollout in rollouts)
    return [answers, _mean([rollout["reward"] for rollout in rollouts]), _mean(valid)]


def _boxes(question: dict[str, Any]) -> list[dict[str, Any]]:
    """Each rollout's first box in W&B's form, where it is in the picture that is shown: shares of the sides."""
    shown, (width, height) = shown_picture(question, question["rollouts"])
    boxes = []
    for rollout in question["rollouts"]:
        turn, number = first_box(rollout) or (0, None)
        if number != shown:
            continue
        named = rollout["named"][turn]
        (x1, x2), (y1, y2) = (
            sorted(_share(named[i], width) for i in (0, 2)),
            sorted(_share(named[i], height) for i in (1, 3)),
        )
        boxes.append(
            {
                "position": {"minX": x1, "minY": y1, "maxX": x2, "maxY": y2},
                "class_id": int(rollout["right"]) if rollout["reasons"][turn] is None else 2,
                "box_caption": str(rollout["answer"]),
                "scores": {"reward": rollout["reward"]},
            }
        )
    return boxes


def _share(value: float, side: int) -> float:
    return min(max(value / side, 0.0), 1.0)


def _mean(values: Sequence[float]) -> float | None:
    return sum(values) / len(values) if values else None
