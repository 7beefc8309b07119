"""Megapixel MNIST (arXiv 1905.03711): small handwritten digits on a large picture, three of which are alike."""

from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw

from mgpo.data.base import DataError
from mgpo.data.scenes import SPLITS
from mgpo.types import Question
from mgpo.world.handwriting import BLOCKS, DIGITS, SIDE, digits

ALIKE, OTHERS = 3, 2  # digits of a picture
LEAST = 10 * SIDE  # pixels of a side on which places without an overlap are found at once
QUESTION = "Which digit is there three times?"
Place = tuple[int, int]  # the left upper corner of a square as large as a digit's image


@dataclass(frozen=True)
class MegapixelPicture:
    """A black picture with white digits and strokes; it is drawn whenever it is loaded."""

    digits: tuple[tuple[str, int, Place], ...]  # each digit, which image of it, and where
    strokes: tuple[tuple[int, int, int, int, int], ...]  # x1, y1, x2, y2, grey
    side: int

    @property
    def size(self) -> tuple[int, int]:
        """Width and height, known before it is drawn."""
        return self.side, self.side

    def load(self) -> Image.Image:
        """The picture, with each digit at its own 28 pixels."""
        image = Image.new("L", self.size)
        canvas = ImageDraw.Draw(image)
        for x1, y1, x2, y2, grey in self.strokes:
            canvas.line([x1, y1, x2, y2], fill=grey)
        for digit, number, place in self.digits:
            image.paste(Image.fromarray(digits()[int(digit), number]), place)
        return image.convert("RGB")


class MegapixelMNIST:
    """Which of five digits is there three times, drawn from a seed; the digits of no two splits share an image.

    The digits lie anywhere, as do pieces of noise, each of two straight strokes through a square of a digit's size.
    No such square overlaps that of a digit.

    Args:
        count: How many questions.
        split: train, val or test.
        seed: Another seed gives other pictures.
        side: Pixels of a picture's side.
        noise: Pieces of noise in a picture.
    """

    title = "Megapixel MNIST"

    def __init__(self, count: int, split: str = "train", seed: int = 0, side: int = 1500, noise: int = 50) -> None:
        if split not in (known := ("train", "val", "test")):
            raise DataError(f"unknown split {split!r}; take one of {', '.join(known)}")
        if side < LEAST:
            raise DataError(f"side is {side}; the digits and the noise between them need {LEAST} pixels or more")
        digits()  # or says what is missing
        self.count, self.split, self.seed, self.side, self.noise = count, split, seed, side, noise

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> Question:
        if not 0 <= index < self.count:
            raise IndexError(index)
        rng = np.random.default_rng((SPLITS[self.split], self.seed, index))
        answer = str(rng.choice(list(DIGITS)))
        others = rng.choice([digit for digit in DIGITS if digit != answer], OTHERS)
        images = rng.choice(range(*BLOCKS[self.split]), ALIKE + OTHERS, replace=False)
        places: list[Place] = []
        for _ in range(ALIKE + OTHERS):
            places.append(self._place(rng, places))
        drawn = tuple(zip([answer] * ALIKE + list(map(str, others)), map(int, images), places))
        strokes = tuple(stroke for _ in range(self.noise) for stroke in _strokes(rng, self._place(rng, places)))
        name = f"megapixel-mnist-{self.split}-{self.seed}-{index}"
        return Question(name, MegapixelPicture(drawn, strokes, self.side), QUESTION, answer, split=self.split)

    def _place(self, rng: np.random.Generator, taken: list[Place]) -> Place:
        """A square anywhere that overlaps none of those taken."""
        while True:
            x, y = map(int, rng.integers(0, self.side - SIDE + 1, 2))
            if all(abs(x - a) >= SIDE or abs(y - b) >= SIDE for a, b in taken):
                return x, y


def _strokes(rng: np.random.Generator, place: Place) -> list[tuple[int, int, int, int, int]]:
    """Two strokes, each from one side of a square to the opposite one."""
    (x, y), far = place, SIDE - 1
    made = []
    for _ in range(2):
        a, b = map(int, rng.integers(0, SIDE, 2))
        ends = (x, y + a, x + far, y + b) if rng.random() < 0.5 else (x + a, y, x + b, y + far)
        made.append((*ends, int(rng.integers(204, 256))))
    return made
