"""Pictures of looks: boxes on the original, the crop beside the same region as it was first seen, boxes over steps."""

import base64
import csv
import io
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure
from PIL import Image, ImageDraw, ImageFont

from mgpo.gallery.data import PICTURE, region_key
from mgpo.images.views import Box, Original
from mgpo.types import Trajectory

SIDE, GAP, CAPTION = 320, 12, 20  # pixels: the longer side of a panel, between panels, above a panel
GOOD, BAD, PLAIN = (22, 163, 74), (220, 38, 38), (37, 99, 235)


def look(trajectory: Trajectory, side: int = SIDE) -> Image.Image:
    """The picture with its boxes; then, of the last crop, the region as first seen and as cut from the original."""
    boxes = [turn.named for turn in trajectory.turns if turn.named is not None]
    panels = [("the picture", framed(trajectory.image, boxes, side))]
    if trajectory.crops:
        first, crop = trajectory.views[0], trajectory.crops[-1]
        box = first.to_input(crop.region)
        size = _fit(crop.size, side)
        lying = size if crop.turn % 2 == 0 else (size[1], size[0])
        seen = crop.turned(first.pixels(trajectory.image).resize(lying, Image.Resampling.NEAREST, box=box))
        cut = crop.pixels(trajectory.image).resize(seen.size, Image.Resampling.BICUBIC)
        panels += [("that part, as first seen", seen), ("as cut from the original", cut)]
    return row(panels)


def framed(
    image: Original,
    boxes: Sequence[Box],
    side: int = SIDE,
    colours: Sequence[tuple[int, int, int]] = (),
    original: tuple[int, int] | None = None,
) -> Image.Image:
    """A small copy with frames. Boxes are in pixels of the original, whose size is the image's unless given."""
    size = _fit(image.size, side)
    small = image.resize(size, Image.Resampling.BICUBIC, reducing_gap=2.0)
    draw, width = ImageDraw.Draw(small), (original or image.size)[0]
    scale = size[0] / width
    for i, box in enumerate(boxes):
        x1, y1, x2, y2 = (min(max(value * scale, -side), 2 * side) for value in box)
        ends = (min(x1, x2), min(y1, y2), max(x1, x2), max(y1, y2))
        draw.rectangle(ends, outline=colours[i] if colours else PLAIN, width=2)
    return small


def row(panels: Sequence[tuple[str, Image.Image]]) -> Image.Image:
    """Pictures beside each other, each under its name."""
    width = sum(panel.width for _, panel in panels) + GAP * (len(panels) - 1)
    height = max(panel.height for _, panel in panels) + CAPTION
    sheet = Image.new("RGB", (width, height), "white")
    draw, left = ImageDraw.Draw(sheet), 0
    for name, panel in panels:
        draw.text((left, 3), name, fill="black", font=ImageFont.load_default(13))
        sheet.paste(panel, (left, CAPTION))
        left += panel.width + GAP
    return sheet


def _fit(size: tuple[int, int], side: int) -> tuple[int, int]:
    scale = side / max(size)
    return (max(1, round(size[0] * scale)), max(1, round(size[1] * scale)))


def overlay(trajectories: Sequence[Trajectory], side: int = SIDE) -> Image.Image:
    """The first box of each rollout of a question: green where the answer was right, red where it was wrong."""
    named = [(t.turns[0].named, t.right) for t in trajectories if t.turns[0].named is not None]
    colours = [GOOD if right else BAD for _, right in named]
    return framed(trajectories[0].image, [box for box, _ in named if box], side, colours)


def steps(page: Mapping[str, Any], question: int = 0, side: int = 180) -> Image.Image:
    """A question's boxes over a run, step by step; `page` is what `mgpo.gallery.page.read_page` gives."""
    asked = page["questions"][question]
    picture = from_uri(asked["images"][PICTURE])
    return row([(f"step {step}", drawn(picture, group, asked["size"], side)) for step, group in asked["steps"].items()])


def drawn(
    picture: Image.Image, rollouts: Sequence[Mapping[str, Any]], size: tuple[int, int], side: int = SIDE
) -> Image.Image:
    """A small picture with the first boxes of a gallery's rollouts, which are in pixels of an original of `size`."""
    named = [(next(box for box in r["named"] if box), r["right"]) for r in rollouts if any(r["named"])]
    colours = [GOOD if right else BAD for _, right in named]
    return framed(picture, [box for box, _ in named], side, colours, size)


def film(page: Mapping[str, Any], path: Path, questions: Sequence[int], side: int = 220, seconds: float = 1.0) -> None:
    """An animation of a gallery page: boxes over the steps, under each picture the crop of its first usable box."""
    chosen = [page["questions"][i] for i in questions]
    frames = []
    for step in page["steps"]:
        groups = [(asked, asked["steps"][str(step)]) for asked in chosen]
        captions = [f"{sum(rollout['right'] for rollout in group)} of {len(group)} right" for _, group in groups]
        captions[0] = f"step {step}: {captions[0]}"
        frames.append(row([(c, _column(asked, group, side)) for c, (asked, group) in zip(captions, groups)]))
    first, *others = frames
    first.save(path, save_all=True, append_images=others, duration=round(1000 * seconds), loop=0)


def _column(asked: Mapping[str, Any], group: Sequence[Mapping[str, Any]], side: int) -> Image.Image:
    """A question's picture with its boxes, and below it the first crop of the group."""
    picture = drawn(from_uri(asked["images"][PICTURE]), group, asked["size"], side)
    font, words = ImageFont.load_default(12), textwrap.fill(asked["text"], side // 6)
    left, top = (picture.width - side // 2) // 2, picture.height + GAP // 2
    column = Image.new("RGB", (picture.width, top + side // 2 + 3 * CAPTION), "white")
    column.paste(picture, (0, 0))
    draw = ImageDraw.Draw(column)
    draw.multiline_text((0, top + side // 2 + 4), words, fill="black", font=font)
    cut = next((rollout["regions"][-1] for rollout in group if rollout["regions"]), None)
    if cut is None:
        draw.text((left, top), "no crop", fill=BAD, font=font)
    else:
        crop = from_uri(asked["images"][region_key(cut)][0])
        column.paste(crop.resize(_fit(crop.size, side // 2), Image.Resampling.BICUBIC), (left, top))
    return column


def from_uri(uri: str) -> Image.Image:
    """The picture that a data URI holds."""
    return Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2]))).convert("RGB")


def curves(run: Path, names: Sequence[str]) -> Image.Image:
    """Curves of a run's metrics.csv over its optimiser updates. Raises KeyError for a metric that was not logged."""
    with (run / "metrics.csv").open() as lines:
        rows = list(csv.DictReader(lines))
    figure = Figure(figsize=(7, 2.6), layout="constrained")
    axes = figure.subplots()
    for name in names:
        values = [(int(row["step"]), float(row[name])) for row in rows if row[name]]
        axes.plot(*zip(*values), label=name)
    axes.set_xlabel("step")
    axes.legend(frameon=False)
    drawn_to = io.BytesIO()
    figure.savefig(drawn_to, format="png", dpi=80)
    return Image.open(drawn_to)
