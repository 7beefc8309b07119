"""Where the marks are that a question of the embedded world is about; training can't import it."""

import re
from collections.abc import Sequence

from mgpo.images.views import Box
from mgpo.metrics.record import Region
from mgpo.types import Question
from mgpo.world.questions import KINDS, STYLES, ScenePicture, Size, sample_question
from mgpo.world.scenes import Mark

# Kind and seed, at the end of an id: a mixture puts the names of its parts in front.
_NAME = re.compile(rf"(?<![a-z_])({'|'.join(KINDS)})-(\d{{1,9}}(?:-\d{{1,9}}){{0,5}})$")


def marks_of(question: Question) -> tuple[Mark, ...] | None:
    """The marks that a question is about, drawn anew from its seed; None where it is none of the embedded world's."""
    picture, name = question.picture, _NAME.search(question.id)
    if not isinstance(picture, ScenePicture) or name is None:
        return None
    seed = tuple(map(int, name[2].split("-")))
    sizes: list[Size] = [size for size in STYLES["train"] if question.category.endswith(f", {size}")]
    handwritten = picture.scene.face == "handwritten"
    again, marks = sample_question(
        name[1], seed, picture.side, question.split, sizes[0] if sizes else "small", handwritten
    )
    return marks if (again.picture, again.text) == (picture, question.text) else None


def covered(question: Question, regions: Sequence[Region]) -> float | None:
    """The share of its mark that the best of these parts of the picture covers; of several marks the least share.

    A mark counts as the square around it. None where it is not known where that is.
    """
    marks = marks_of(question)
    if marks is None or not isinstance(question.picture, ScenePicture):
        return None
    side = question.picture.side
    squares = [_square(mark, side) for mark in marks]
    return max((min(_share(square, region) for square in squares) for region in regions), default=0.0)


def _square(mark: Mark, side: int) -> Box:
    x, y, radius = mark.x * side, mark.y * side, mark.radius * side
    return (x - radius, y - radius, x + radius, y + radius)


def _share(square: Box, region: Region) -> float:
    width = min(square[2], region[2]) - max(square[0], region[0])
    height = min(square[3], region[3]) - max(square[1], region[1])
    return max(0.0, width) * max(0.0, height) / ((square[2] - square[0]) * (square[3] - square[1]))
