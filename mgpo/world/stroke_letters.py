"""A second face for letters, drawn as polylines, for scenes whose printing no model was trained on."""

from PIL import ImageDraw

Line = tuple[tuple[float, float], ...]
# By letter, in a box from (0, 0) at the top left to (1, 1); rounder letters are cornered.
STROKES: dict[str, tuple[Line, ...]] = {
    "A": (((0, 1), (0.5, 0), (1, 1)), ((0.2, 0.66), (0.8, 0.66))),
    "C": (
        ((0.95, 0.2), (0.75, 0.02), (0.3, 0.02), (0.05, 0.25), (0.05, 0.75), (0.3, 0.98), (0.75, 0.98), (0.95, 0.8)),
    ),
    "E": (((0.95, 0), (0.08, 0), (0.08, 1), (0.95, 1)), ((0.08, 0.48), (0.8, 0.48))),
    "F": (((0.95, 0), (0.1, 0), (0.1, 1)), ((0.1, 0.48), (0.8, 0.48))),
    "H": (((0.05, 0), (0.05, 1)), ((0.95, 0), (0.95, 1)), ((0.05, 0.5), (0.95, 0.5))),
    "K": (((0.08, 0), (0.08, 1)), ((0.92, 0), (0.1, 0.56)), ((0.38, 0.38), (0.95, 1))),
    "L": (((0.12, 0), (0.12, 1), (0.95, 1)),),
    "M": (((0, 1), (0.08, 0), (0.5, 0.7), (0.92, 0), (1, 1)),),
    "N": (((0.06, 1), (0.06, 0), (0.94, 1), (0.94, 0)),),
    "P": (((0.1, 1), (0.1, 0), (0.7, 0), (0.94, 0.15), (0.94, 0.4), (0.7, 0.55), (0.1, 0.55)),),
    "R": (
        ((0.1, 1), (0.1, 0), (0.7, 0), (0.94, 0.14), (0.94, 0.38), (0.7, 0.52), (0.1, 0.52)),
        ((0.5, 0.52), (0.95, 1)),
    ),
    "T": (((0, 0), (1, 0)), ((0.5, 0), (0.5, 1))),
    "U": (((0.06, 0), (0.06, 0.72), (0.28, 0.98), (0.72, 0.98), (0.94, 0.72), (0.94, 0)),),
    "V": (((0, 0), (0.5, 1), (1, 0)),),
    "X": (((0.02, 0), (0.98, 1)), ((0.98, 0), (0.02, 1))),
    "Z": (((0.04, 0), (0.96, 0), (0.04, 1), (0.96, 1)),),
}
WIDTH, WEIGHT = 0.78, 0.17  # of a letter and of its strokes, in heights


def draw_letter(
    canvas: ImageDraw.ImageDraw, letter: str, x: float, y: float, height: float, colour: tuple[int, int, int]
) -> None:
    """Draw a letter `height` pixels high around (x, y), with round ends."""
    weight = max(1.0, WEIGHT * height)
    across, down = WIDTH * height - weight, height - weight
    for line in STROKES[letter]:
        points = [(x + (u - 0.5) * across, y + (v - 0.5) * down) for u, v in line]
        canvas.line(points, fill=colour, width=round(weight), joint="curve")
        for u, v in (points[0], points[-1]):
            canvas.ellipse([u - weight / 2, v - weight / 2, u + weight / 2, v + weight / 2], fill=colour)
