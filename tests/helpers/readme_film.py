"""The animation at the top of the README, from a gallery page."""

import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from mgpo.gallery.data import crop_key
from mgpo.gallery.drawing import BAD, CAPTION, GAP, GROUP, _fit, drawn, explained, from_uri, row

MISSED = 6  # levels by which a colour of a film differs from the picture's, from where it gets one of its own


def film(page: Mapping[str, Any], path: Path, questions: Sequence[int], side: int = 220, seconds: float = 1.0) -> None:
    """An animation of a gallery page: boxes over the steps, under each picture the crop of its first usable box."""
    chosen = [page["questions"][i] for i in questions]
    frames = []
    for step in page["steps"]:
        groups = [(asked, asked["steps"][str(step)]) for asked in chosen]
        captions = [f"{sum(rollout['right'] for rollout in group)} of {len(group)} right" for _, group in groups]
        captions[0] = f"step {step}: {captions[0]}"
        columns = [(c, _column(asked, group, side)) for c, (asked, group) in zip(captions, groups)]
        frames.append(explained(row(columns), GROUP))
    first, *others = in_one_palette(frames)
    first.save(path, save_all=True, append_images=others, duration=round(1000 * seconds), loop=0)


def in_one_palette(frames: Sequence[Image.Image]) -> list[Image.Image]:
    """Frames in 256 colours that all of them share, so that a colour stays the same from frame to frame.

    Half are those of most pixels, which are background; half are for what these miss, such as small marks.
    """
    strip = Image.fromarray(np.concatenate([np.asarray(frame) for frame in frames]))
    common = strip.quantize(128, Image.Quantize.MEDIANCUT, kmeans=1)
    pixels = np.asarray(strip)
    missed = pixels[np.abs(pixels - np.asarray(common.convert("RGB"), int)).max(-1) > MISSED]
    colours = common.getpalette() or []
    if len(missed):
        rest = Image.fromarray(missed[None]).quantize(128, Image.Quantize.MAXCOVERAGE, kmeans=1)
        colours += rest.getpalette() or []
    palette = Image.new("P", (1, 1))
    palette.putpalette(colours)
    return [frame.quantize(palette=palette, dither=Image.Dither.NONE) for frame in frames]


def _column(asked: dict[str, Any], group: Sequence[dict[str, Any]], side: int) -> Image.Image:
    """A question's picture with its boxes, and below it the first crop of the group."""
    picture = drawn(asked, group, side)
    font, words = ImageFont.load_default(12), textwrap.fill(asked["text"], side // 6)
    left, top = (picture.width - side // 2) // 2, picture.height + GAP // 2
    column = Image.new("RGB", (picture.width, top + side // 2 + 3 * CAPTION), "white")
    column.paste(picture, (0, 0))
    draw = ImageDraw.Draw(column)
    draw.multiline_text((0, top + side // 2 + 4), words, fill="black", font=font)
    cut = next(filter(None, map(crop_key, group)), None)
    if cut is None:
        draw.text((left, top), "no crop", fill=BAD, font=font)
    else:
        crop = from_uri(asked["images"][cut][0])
        column.paste(crop.resize(_fit(crop.size, side // 2), Image.Resampling.BICUBIC), (left, top))
    return column
