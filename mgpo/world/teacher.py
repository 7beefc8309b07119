"""The teacher of pretraining: where it would look, and the habits in which it names boxes badly."""

from dataclasses import dataclass

import numpy as np

from mgpo.world.scenes import Mark

GRID = 4  # the teacher's boxes lie on multiples of this many input pixels
HALF = 16  # half the side of the box around one small mark, in pixels of a view of SIDE
SIDE = 112
LARGE = 2.75  # large marks are so many times larger


@dataclass(frozen=True)
class Habits:
    """How the teacher names boxes, as shares of its replies; what is left over is a good box.

    A tight box is centred and too small, an inverted one has its corners swapped, an outer one leaves
    the picture, and a wild one lies anywhere.
    """

    tight: float = 0.0
    inverted: float = 0.0
    outer: float = 0.0
    wild: float = 0.0

    def draw(self, rng: np.random.Generator) -> str:
        """One habit at random, by its share: tight, inverted, outer, wild, or good."""
        number = rng.random()
        for name, share in vars(self).items():
            number -= share
            if number < 0:
                return name
        return "good"


def is_large(mark: Mark) -> bool:
    """Whether a mark is of a style whose ink can be read at the pixel cap: a radius above 0.08 sides of the picture."""
    return mark.radius > 0.08


def teacher_box(marks: tuple[Mark, ...], side: int, habit: str, rng: np.random.Generator) -> tuple[int, int, int, int]:
    """A box in pixels of the `side` × `side` view, on the grid."""
    xs, ys = [m.x * side for m in marks], [m.y * side for m in marks]
    unit = side / SIDE * (LARGE if is_large(marks[0]) else 1)
    half = (HALF - 5 * (len(marks) - 1)) * unit
    least = 2 * HALF * unit
    if habit == "tight":
        half, least = (8 - 3 * (len(marks) - 1)) * side / SIDE, 0.0
    if habit == "wild":
        xs, ys = [rng.uniform(0, side)], [rng.uniform(0, side)]
    (x1, x2), (y1, y2) = (_snap_span(min(v) - half, max(v) + half, least) for v in (xs, ys))
    if habit == "outer":
        shift = side - GRID * int(rng.integers(1, 5))
        return (max(0, x1), max(0, y1 + shift), max(0, x2), max(0, y2 + shift))
    (x1, x2), (y1, y2) = _inside(x1, x2, side), _inside(y1, y2, side)
    return (x2, y2, x1, y1) if habit == "inverted" else (x1, y1, x2, y2)


def _snap_span(low: float, high: float, least: float) -> tuple[int, int]:
    """A span on the grid, widened to `least` where it is shorter."""
    short = max(0.0, least - (high - low))
    first = round((low - short / 2) / GRID)
    return GRID * first, GRID * (first + round((high - low + short) / GRID))


def _inside(low: int, high: int, side: int) -> tuple[int, int]:
    """The span moved inside the picture, keeping its length where it fits."""
    shift = max(0, -low) - max(0, high - side)
    return max(0, low + shift), min(side, high + shift)
