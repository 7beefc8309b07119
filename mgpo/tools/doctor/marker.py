"""A mark at a known place: drawn, named in a family's own coordinates, and found again.

The arithmetic is done anew here, on purpose: what maps boxes in training is what is examined.
"""

import math
from fractions import Fraction

import numpy as np
from PIL import Image, ImageDraw

from mgpo.images.views import Box, Frame, Size
from mgpo.policy.base import Policy

CANVAS = (1500, 1000)
# Shares of width and height. Nothing is in the middle, so that turned and swapped axes show.
BOX = (0.1, 0.2, 0.75, 0.9)
MARK = (0.25, 0.3, 0.35, 0.44)
CLEAR = 0.5  # of full magenta


def frame_of(policy: Policy) -> Frame:
    """The units in which the policy's family writes boxes, as published; its own where the family says nothing."""
    return policy.published_frame or policy.resolution.frame


def draw_canvas() -> Image.Image:
    """Grey, with a magenta mark."""
    image = Image.new("RGB", CANVAS, (128, 128, 128))
    x1, y1, x2, y2 = (round(share * side) for share, side in zip(MARK, 2 * CANVAS))
    ImageDraw.Draw(image).rectangle((x1, y1, x2 - 1, y2 - 1), fill=(255, 0, 255))
    return image


def numbers(size: Size, frame: Frame) -> tuple[float, ...]:
    """The box around the mark as a family writes it about an input of that size, with the rounding of writing."""
    units = {Frame.PIXELS: size, Frame.THOUSAND: (1000, 1000), Frame.UNIT: (1, 1)}[frame]
    return tuple(round(share * unit, 3 if frame is Frame.UNIT else None) for share, unit in zip(BOX, 2 * units))


def region(size: Size, frame: Frame) -> tuple[int, int, int, int]:
    """The same box in whole pixels of the canvas, rounded outwards; exact, where floats could fall on either side."""
    units = {Frame.PIXELS: size, Frame.THOUSAND: (1000, 1000), Frame.UNIT: (1, 1)}[frame]
    written = (Fraction(str(number)) for number in numbers(size, frame))
    x1, y1, x2, y2 = (number / unit * side for number, unit, side in zip(written, 2 * units, 2 * CANVAS))
    return math.floor(x1), math.floor(y1), math.ceil(x2), math.ceil(y2)


def box_text(size: Size, frame: Frame) -> str:
    """A reply that names this box."""
    return f'```json\n[{{"bbox_2d": {list(numbers(size, frame))}, "label": "mark"}}]\n```'


def predict(region: Box, size: Size, turn: int = 0) -> tuple[float, float] | None:
    """Where in an image of `size` that shows a region of the canvas, given in its pixels and turned clockwise by
    `turn` quarter turns, the middle of the mark is, or of that part of it; None where there is none of it."""
    left, top, right, bottom = region
    x1, y1, x2, y2 = (share * side for share, side in zip(MARK, 2 * CANVAS))
    x1, y1, x2, y2 = max(x1, left), max(y1, top), min(x2, right), min(y2, bottom)
    if x1 >= x2 or y1 >= y2:
        return None
    x, y = ((x1 + x2) / 2 - left) / (right - left), ((y1 + y2) / 2 - top) / (bottom - top)
    for _ in range(turn % 4):
        x, y = 1 - y, x
    return x * size[0], y * size[1]


def find(image: Image.Image) -> tuple[float, float] | None:
    """The middle of what is magenta, to a fraction of a pixel: one that is partly magenta counts for that part."""
    red, green, blue = np.moveaxis(np.asarray(image.convert("RGB"), dtype=int), -1, 0)
    magenta = np.clip((np.minimum(red, blue) - green) / 255, 0, 1)
    if magenta.max() < CLEAR:
        return None
    y, x = (np.average(np.arange(side) + 0.5, weights=magenta.sum(1 - axis)) for axis, side in enumerate(magenta.shape))
    return x, y
