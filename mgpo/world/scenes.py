"""High-resolution scenes drawn from a seed.

A scene is a picture with a handful of round marks. A mark's colour and place are visible when the
whole picture is shrunk to the pixel cap; what it bears (a letter, some dots, or a handwritten digit) is
not, unless the marks are large. Nothing in a scene depends on the size at which it is drawn: places and sizes are
fractions of the side.
"""

from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Literal

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from mgpo.world.handwriting import BLOCKS, DIGITS, draw_digit
from mgpo.world.stroke_letters import draw_letter

COLOURS: dict[str, tuple[int, int, int]] = {
    "red": (215, 30, 35),
    "orange": (250, 140, 20),
    "yellow": (245, 230, 40),
    "green": (25, 150, 50),
    "cyan": (50, 215, 225),
    "blue": (35, 60, 215),
    "purple": (140, 40, 170),
    "white": (250, 250, 250),
}
LIGHT = {"orange", "yellow", "cyan", "white"}  # these marks bear dark ink
ROWS = 16  # that are drawn at a time
LETTERS = "ACEFHKLMNPRTUVXZ"
DOTS = "23456"
# Where the dots of a mark sit, in units of the ink's half-height.
DOT_PLACES = {
    "2": [(-0.7, -0.7), (0.7, 0.7)],
    "3": [(-0.9, -0.9), (0, 0), (0.9, 0.9)],
    "4": [(-0.8, -0.8), (0.8, -0.8), (-0.8, 0.8), (0.8, 0.8)],
    "5": [(-0.9, -0.9), (0.9, -0.9), (0, 0), (-0.9, 0.9), (0.9, 0.9)],
    "6": [(-0.8, -1), (0.8, -1), (-0.8, 0), (0.8, 0), (-0.8, 1), (0.8, 1)],
}


Face = Literal["printed", "strokes", "handwritten"]  # how letters look; by hand there are digits alone


@dataclass(frozen=True)
class Style:
    """What a split draws its scenes from; every length is a fraction of the picture's side."""

    marks: tuple[int, int] = (4, 6)
    radius: tuple[float, float] = (0.038, 0.046)
    ink: tuple[float, float] = (0.30, 0.35)  # height of a letter, in diameters of its mark
    margin: float = 0.06
    clutter: tuple[int, int] = (0, 6)
    ground: tuple[float, float] = (0.55, 0.85)  # how strongly the ground's colour varies over the picture
    waves: int = 0  # plane waves of colour over the ground
    face: Face = "printed"
    images: tuple[int, int] = BLOCKS["train"]  # of each digit, where they are handwritten


TRAIN = Style()
# Marks so large that what they bear can be read at the pixel cap, and such where it can almost be read.
LARGE = Style(marks=(2, 3), radius=(0.105, 0.125), margin=0.135)
MEDIUM = Style(marks=(3, 4), radius=(0.082, 0.092), margin=0.11)
OUT_OF_DISTRIBUTION = Style(
    marks=(7, 8), radius=(0.034, 0.050), ink=(0.29, 0.37), margin=0.045, clutter=(8, 14), ground=(0.45, 0.95)
)
LARGE_OUT_OF_DISTRIBUTION = replace(OUT_OF_DISTRIBUTION, marks=(3, 4), radius=(0.100, 0.130), margin=0.135)
MEDIUM_OUT_OF_DISTRIBUTION = replace(OUT_OF_DISTRIBUTION, marks=(3, 4), radius=(0.078, 0.096), margin=0.11)
# What nothing is chosen on: another face, other backgrounds.
TEST, LARGE_TEST, MEDIUM_TEST = (
    replace(style, clutter=(4, 10), waves=5, face="strokes") for style in (TRAIN, LARGE, MEDIUM)
)


@dataclass(frozen=True)
class Mark:
    """One mark: its colour's name, what it bears, its centre, radius and the height of its ink.

    `image` says which image of its digit a handwritten one is.
    """

    colour: str
    bears: str
    x: float
    y: float
    radius: float
    ink: float
    image: int | None = None


@dataclass(frozen=True)
class Scene:
    """A picture as a description; `draw` makes it pixels."""

    marks: tuple[Mark, ...]
    corners: tuple[tuple[float, ...], ...]  # colour of the ground at x = 0, x = 1, y = 0, y = 1
    strokes: tuple[tuple[float, ...], ...]  # x1, y1, x2, y2, grey, width
    waves: tuple[tuple[float, ...], ...] = ()  # turns over x and y, phase, and how far each colour swings
    face: Face = "printed"

    def mark(self, colour: str) -> Mark:
        """The mark of a colour, which no two marks of a sampled scene share. Raises StopIteration without one."""
        return next(mark for mark in self.marks if mark.colour == colour)


def sample_scene(rng: np.random.Generator, style: Style = TRAIN, pair: bool = False) -> Scene:
    """A random scene; with `pair` its first two marks lie side by side."""
    count = int(rng.integers(style.marks[0], style.marks[1] + 1))
    colours = rng.permutation(list(COLOURS))[:count]
    marks: list[Mark] = []
    while len(marks) < count:
        radius = rng.uniform(*style.radius)
        low, high = style.margin, 1 - style.margin
        x, y = rng.uniform(low, high, 2)
        if pair and len(marks) == 1:
            angle, distance = rng.uniform(-0.9, 0.9), rng.uniform(2.1, 2.5) * style.radius[1]
            side = rng.choice([-1, 1])
            x, y = marks[0].x + side * distance * np.cos(angle), marks[0].y + distance * np.sin(angle)
            if not (low <= x <= high and low <= y <= high):
                marks.clear()
                continue
        if any(np.hypot(x - m.x, y - m.y) < 1.03 * (radius + m.radius) for m in marks):
            continue
        bears, image = sample_content(rng, style, letter=pair and len(marks) < 2)
        ink = 2 * radius * rng.uniform(*style.ink)
        marks.append(Mark(str(colours[len(marks)]), bears, float(x), float(y), float(radius), float(ink), image))
    return Scene(tuple(marks), _ground(rng, style), _strokes(rng, style), _waves(rng, style), style.face)


def sample_content(rng: np.random.Generator, style: Style, letter: bool = False) -> tuple[str, int | None]:
    """What a mark bears, with `letter` no dots; and which image of it, where it is handwritten."""
    if style.face == "handwritten":
        return str(rng.choice(list(DIGITS))), int(rng.integers(*style.images))
    letter = letter or rng.random() < 0.75
    return str(rng.choice(list(LETTERS if letter else DOTS))), None


def _ground(rng: np.random.Generator, style: Style) -> tuple[tuple[float, ...], ...]:
    """Muted colours that run over the picture: warmer to the right, brighter at the top, as light does."""
    strength = 90 * rng.uniform(*style.ground)
    warm = np.array([1.0, 0.1, -0.9]) * strength / 2
    bright = np.array([0.35, 1.0, 0.35]) * strength / 2
    tint = np.array([120.0, 120.0, 120.0]) + rng.uniform(-6, 6, 3)
    return tuple(tuple(float(v) for v in corner) for corner in (tint - warm, tint + warm, bright, -bright))


def _strokes(rng: np.random.Generator, style: Style) -> tuple[tuple[float, ...], ...]:
    count = int(rng.integers(style.clutter[0], style.clutter[1] + 1))
    return tuple(
        (*(float(v) for v in rng.uniform(0, 1, 4)), int(rng.integers(90, 150)), float(rng.uniform(0.0005, 0.002)))
        for _ in range(count)
    )


def _waves(rng: np.random.Generator, style: Style) -> tuple[tuple[float, ...], ...]:
    return tuple(
        (
            *(float(v) for v in rng.uniform(-3, 3, 2)),
            float(rng.uniform(0, 2 * np.pi)),
            *map(float, rng.uniform(-9, 9, 3)),
        )
        for _ in range(style.waves)
    )


def draw(scene: Scene, side: int, region: tuple[float, float, float, float] = (0, 0, 1, 1)) -> Image.Image:
    """Draw a region of the scene (x1, y1, x2, y2 in fractions), `side` pixels wide."""
    x1, y1, x2, y2 = region
    scale = side / (x2 - x1)
    height = max(1, round((y2 - y1) * scale))
    left, right, top, bottom = (np.array(corner)[:, None] for corner in scene.corners)
    along_x = left + (right - left) * np.linspace(x1, x2, side)
    along_y = top + (bottom - top) * np.linspace(y1, y2, height)
    down, across = along_y.astype(np.int16), along_x.astype(np.int16)
    least, most = (bound(down, axis=1) + bound(across, axis=1) for bound in (np.min, np.max))
    if not scene.waves and least.min() >= 0 and most.max() <= 255:
        image = _slope(down, across)
    else:
        turns = [
            (2 * np.pi * over_x * np.linspace(x1, x2, side) + phase, 2 * np.pi * over_y * np.linspace(y1, y2, height))
            for over_x, over_y, phase, *_ in scene.waves
        ]
        image = _rolling(down, across, turns, [swings for _, _, _, *swings in scene.waves])
    canvas = ImageDraw.Draw(image)
    for a, b, c, d, grey, width in scene.strokes:
        ends = [(a - x1) * scale, (b - y1) * scale, (c - x1) * scale, (d - y1) * scale]
        canvas.line(ends, fill=(int(grey),) * 3, width=max(1, round(width * scale)))
    for mark in scene.marks:
        _draw_mark(canvas, mark, (mark.x - x1) * scale, (mark.y - y1) * scale, scale, scene.face)
    return image


def _slope(down_CH: np.ndarray, across_CW: np.ndarray) -> Image.Image:
    """Sums of a row's and a column's value, all of which are bytes: four to a number, so that a pixel is one sum."""
    least_C1 = down_CH.min(axis=1, keepdims=True)  # then neither part is negative, and no band carries into the next
    red_H, green_H, blue_H = (down_CH - least_C1).astype("<u4")
    red_W, green_W, blue_W = (across_CW + least_C1).astype("<u4")
    rows_H, columns_W = red_H + (green_H << 8) + (blue_H << 16) + (255 << 24), red_W + (green_W << 8) + (blue_W << 16)
    pixels_HW = rows_H[:, None] + columns_W
    return Image.frombytes("RGB", pixels_HW.shape[::-1], pixels_HW, "raw", "RGBX")


def _rolling(
    down_CH: np.ndarray,
    across_CW: np.ndarray,
    turns: list[tuple[np.ndarray, np.ndarray]],
    swings: list[list[float]],
) -> Image.Image:
    """Sums of a row's and a column's value and of waves, by a few rows at a time, which stay in the processor's cache.

    Each wave has angles along x (W,) and along y (H,), and swings that far in each of the colours.
    """
    bands_CHW = np.empty((3, down_CH.shape[1], across_CW.shape[1]), np.uint8)
    parts = [(np.cos(x_W), np.sin(x_W), np.cos(y_H)[:, None], np.sin(y_H)[:, None]) for x_W, y_H in turns]
    for top in range(0, bands_CHW.shape[1], ROWS):
        rows = slice(top, top + ROWS)
        waves = [cos_y[rows] * cos_x - sin_y[rows] * sin_x for cos_x, sin_x, cos_y, sin_y in parts]  # cos of their sum
        for c, band_HW in enumerate(bands_CHW):
            ground_HW = down_CH[c, rows, None] + across_CW[c]
            for wave_HW, swing in zip(waves, swings):
                ground_HW += (swing[c] * wave_HW).astype(np.int16)
            band_HW[rows] = np.clip(ground_HW, 0, 255)
    return Image.merge("RGB", [Image.fromarray(band_HW) for band_HW in bands_CHW])


def _draw_mark(canvas: ImageDraw.ImageDraw, mark: Mark, x: float, y: float, scale: float, face: Face) -> None:
    radius, ink = mark.radius * scale, mark.ink * scale
    colour = (20, 20, 20) if mark.colour in LIGHT else (250, 250, 250)
    canvas.ellipse([x - radius, y - radius, x + radius, y + radius], fill=COLOURS[mark.colour])
    if mark.image is not None:
        draw_digit(canvas, mark.bears, mark.image, x, y, ink, colour)
    elif mark.bears in DOT_PLACES:
        dot = ink * 0.16
        for dx, dy in DOT_PLACES[mark.bears]:
            cx, cy = x + dx * ink / 2, y + dy * ink / 2
            canvas.ellipse([cx - dot, cy - dot, cx + dot, cy + dot], fill=colour)
    elif face == "strokes":
        draw_letter(canvas, mark.bears, x, y, ink, colour)
    else:
        canvas.text(
            (x, y), mark.bears, fill=colour, font=_font(max(4, round(ink / 0.70))), anchor="mm", stroke_width=ink * 0.03
        )


@lru_cache(maxsize=512)
def _font(size: int) -> ImageFont.FreeTypeFont:
    """Pillow's own scalable font: the same letters on every machine."""
    font = ImageFont.load_default(size)
    assert isinstance(font, ImageFont.FreeTypeFont), "Pillow was built without FreeType; install the wheel from PyPI"
    return font
