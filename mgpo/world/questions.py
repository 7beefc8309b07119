"""Questions about a scene, of V*'s two kinds and counting; unless its marks are large, only a crop tells the answer."""

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from PIL import Image

from mgpo.answers import LETTERS as OPTIONS
from mgpo.types import Question
from mgpo.world.handwriting import BLOCKS, DIGITS
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
HANDWRITTEN_KINDS = KINDS[:3]  # dots would be digits too
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
ASK_DIGIT, ASK_DIGITS = (text.replace("letter", "digit") for text in (ASK_LETTER, ASK_PAIR))


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


def style_of(split: str, size: Size = "small", handwritten: bool = False) -> Style:
    """What a split draws scenes with marks of a size from."""
    style = STYLES.get(split, STYLES["train"])[size]
    return replace(style, face="handwritten", images=BLOCKS[split]) if handwritten else style


def sample_question(
    kind: str, seed: tuple[int, ...], side: int, split: str, size: Size = "small", handwritten: bool = False
) -> tuple[Question, tuple[Mark, ...]]:
    """A question of a kind about a scene of its own, and its marks (for pretraining and audits only)."""
    rng = np.random.default_rng(seed)
    style = style_of(split, size, handwritten)
    wanted = DOTS if kind == "counting" else DIGITS if handwritten else LETTERS
    while True:
        scene = sample_scene(rng, style, pair=kind == "relative_position")
        bearing = [mark for mark in scene.marks if mark.bears in wanted]
        if bearing:
            break
    asked = scene.marks[:2] if kind == "relative_position" else (bearing[rng.integers(len(bearing))],)
    text, answer, choices = ask(kind, asked, rng)
    name = "-".join(map(str, seed))
    category = kind if size == "small" else f"{kind}, {size}"
    accepted = (answer.replace(" ", ""),) if " " in answer else ()
    picture = ScenePicture(scene, side)
    question = Question(f"{kind}-{name}", picture, text, answer, choices, category, split, accepted=accepted)
    return question, asked


def ask(kind: str, marks: tuple[Mark, ...], rng: np.random.Generator) -> tuple[str, str, tuple[str, ...]]:
    """Text, answer and choices of a question of a kind about given marks."""
    handwritten = marks[0].image is not None
    if kind == "relative_position":
        first, second = (marks[i].colour for i in rng.permutation(2))
        left_to_right = sorted(marks, key=lambda mark: mark.x)
        ask_both, between = (ASK_DIGITS, " ") if handwritten else (ASK_PAIR, "")  # two digits, rather than a number
        return ask_both.format(first, second), between.join(mark.bears for mark in left_to_right), ()
    if kind == "counting":
        return ASK_DOTS.format(marks[0].colour), marks[0].bears, ()
    text, right = (ASK_DIGIT if handwritten else ASK_LETTER).format(marks[0].colour), marks[0].bears
    if kind == "attribute":
        return text, right, ()
    others = [other for other in rng.permutation(list(DIGITS if handwritten else LETTERS)) if other != right]
    place = int(rng.integers(5))  # the fifth option is right where what is borne is not among the first four
    options = [str(other) for other in others[:4]]
    if place < 4:
        options[place] = right
    return text, OPTIONS[place], (*options, NOT_SHOWN)
