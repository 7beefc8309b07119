"""Questions about a scene, of V*'s two kinds and counting; unless its marks are large, only a crop tells the answer."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from PIL import Image

from mgpo.answers import LETTERS as OPTIONS
from mgpo.types import Question
from mgpo.world.scenes import (
    DOTS,
    LARGE,
    LARGE_OUT_OF_DISTRIBUTION,
    LARGE_TEST,
    LETTERS,
    MEDIUM,
    MEDIUM_OUT_OF_DISTRIBUTION,
    MEDIUM_TEST,
    OUT_OF_DISTRIBUTION,
    TEST,
    TRAIN,
    Mark,
    Scene,
    Style,
    draw,
    sample_scene,
)

KINDS = ("attribute", "attribute_choice", "relative_position", "counting")
Size = Literal["small", "medium", "large"]  # of the marks
STYLES: dict[str, dict[Size, Style]] = {
    "train": {"small": TRAIN, "medium": MEDIUM, "large": LARGE},
    "ood": {"small": OUT_OF_DISTRIBUTION, "medium": MEDIUM_OUT_OF_DISTRIBUTION, "large": LARGE_OUT_OF_DISTRIBUTION},
    "test": {"small": TEST, "medium": MEDIUM_TEST, "large": LARGE_TEST},
}
NOT_SHOWN = "none of these"
ASK_LETTER = "Which letter stands on the {} mark?"
ASK_DOTS = "How many dots are on the {} mark?"
ASK_PAIR = "Which letters stand on the {} mark and the {} mark, read from left to right?"


@dataclass(frozen=True)
class ScenePicture:
    """A scene as a picture: it is drawn anew from its seed whenever it is loaded."""

    scene: Scene
    side: int

    @property
    def size(self) -> tuple[int, int]:
        """Width and height, known before it is drawn."""
        return self.side, self.side

    def load(self) -> Image.Image:
        """The scene drawn with `side` pixels on each side."""
        return draw(self.scene, self.side)


def sample_question(
    kind: str, seed: tuple[int, ...], side: int, split: str, size: Size = "small"
) -> tuple[Question, tuple[Mark, ...]]:
    """A question of a kind about a scene of its own, and its marks (for pretraining and audits only)."""
    rng = np.random.default_rng(seed)
    style = STYLES.get(split, STYLES["train"])[size]
    wanted = DOTS if kind == "counting" else LETTERS
    while True:
        scene = sample_scene(rng, style, pair=kind == "relative_position")
        bearing = [mark for mark in scene.marks if mark.bears in wanted]
        if bearing:
            break
    asked = scene.marks[:2] if kind == "relative_position" else (bearing[rng.integers(len(bearing))],)
    text, answer, choices = ask(kind, asked, rng)
    name = "-".join(map(str, seed))
    category = kind if size == "small" else f"{kind}, {size}"
    return Question(f"{kind}-{name}", ScenePicture(scene, side), text, answer, choices, category, split), asked


def ask(kind: str, marks: tuple[Mark, ...], rng: np.random.Generator) -> tuple[str, str, tuple[str, ...]]:
    """Text, answer and choices of a question of a kind about given marks."""
    if kind == "relative_position":
        first, second = (marks[i].colour for i in rng.permutation(2))
        left_to_right = sorted(marks, key=lambda mark: mark.x)
        return ASK_PAIR.format(first, second), "".join(mark.bears for mark in left_to_right), ()
    if kind == "counting":
        return ASK_DOTS.format(marks[0].colour), marks[0].bears, ()
    text, right = ASK_LETTER.format(marks[0].colour), marks[0].bears
    if kind == "attribute":
        return text, right, ()
    others = [letter for letter in rng.permutation(list(LETTERS)) if letter != right]
    place = int(rng.integers(5))  # the fifth option is right where the letter is not among the first four
    options = [str(letter) for letter in others[:4]]
    if place < 4:
        options[place] = right
    return text, OPTIONS[place], (*options, NOT_SHOWN)
