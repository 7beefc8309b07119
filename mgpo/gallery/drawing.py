"""Pictures of looks: boxes on the original, the crop beside the same region as it was first seen, boxes over steps."""

import base64
import io
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

from PIL import Image, ImageDraw, ImageFont

from mgpo.gallery.data import first_box, picture_key, shown_picture
from mgpo.images.boxes import IN_WORDS
from mgpo.images.views import Box, Original
from mgpo.types import Trajectory, Turn

SIDE, GAP, CAPTION = 320, 12, 20  # pixels: the longer side of a panel, between panels, above a panel
SAMPLE, DASH = 30, 5  # pixels: of a line in the legend, of a dash and of the space behind it
GOOD, BAD, PLAIN, GREY = (22, 163, 74), (220, 38, 38), (37, 99, 235), (90, 90, 90)
Colour = tuple[int, int, int]


class Key(NamedTuple):
    """What a kind of line means; without a colour, words alone."""

    words: str
    colour: Colour | None = None
    dashed: bool = False


GROUP = (
    Key("right answer", GOOD),
    Key("wrong answer", BAD),
    Key("dashed: unusable box", GREY, dashed=True),
)


def look(trajectory: Trajectory, side: int = SIDE) -> Image.Image:
    """The picture with its boxes, or those in which some are; then, of the last crop, the region as first seen and as
    cut from the original."""
    named = [(turn.picture or 1, box, _refused(turn)) for turn in trajectory.turns if (box := turn.named) is not None]
    panels = []
    for number in sorted({number for number, _, _ in named}) or [1]:
        here = [(box, refused) for n, box, refused in named if n == number]
        image = trajectory.originals[number - 1]
        whole = framed(image, [box for box, _ in here], side, dashed=[refused for _, refused in here])
        panels.append((f"picture {number}" if trajectory.others else "the picture", whole))
    if trajectory.crops:
        crop = trajectory.crops[-1]
        image, fitted = trajectory.original(crop), replace(crop, size=_fit(crop.size, side))
        seen = fitted.seen_in(trajectory.whole(crop), image, Image.Resampling.NEAREST)
        cut = crop.pixels(image).resize(seen.size, Image.Resampling.BICUBIC)
        panels += [("that part, as first seen", seen), ("as cut from the original", cut)]
    return explained(row(panels), _keys(trajectory))


def _refused(turn: Turn) -> bool:
    return turn.parsed_box is not None and turn.parsed_box.reason is not None


def _keys(trajectory: Trajectory) -> list[Key]:
    """Each kind of line in the picture once, and what there is no line for."""
    keys = []
    for turn in trajectory.turns:
        reason = turn.parsed_box.reason if turn.parsed_box is not None else None
        if reason is not None:
            colour, words = (None, "no box") if turn.named is None else (PLAIN, "dashed: unusable box")
            keys.append(Key(f"{words}, {IN_WORDS[reason]}", colour, dashed=True))
        elif turn.named is not None:
            keys.append(Key("the box that it named", PLAIN))
    return list(dict.fromkeys(keys)) or [Key("no part was looked at")]


def framed(
    image: Original,
    boxes: Sequence[Box],
    side: int = SIDE,
    colours: Sequence[Colour] = (),
    original: tuple[int, int] | None = None,
    dashed: Sequence[bool] = (),
) -> Image.Image:
    """A small copy with frames. Boxes are in pixels of the original, whose size is the image's unless given.

    What of a box lies outside is drawn along the picture's edge.
    """
    size = _fit(image.size, side)
    small = image.resize(size, Image.Resampling.BICUBIC, reducing_gap=2.0)
    draw, width = ImageDraw.Draw(small), (original or image.size)[0]
    scale = size[0] / width
    for i, box in enumerate(boxes):
        x1, y1, x2, y2 = (round(min(max(v * scale, 0), size[k % 2] - 1)) for k, v in enumerate(box))
        ends = (min(x1, x2), min(y1, y2), max(x1, x2), max(y1, y2))
        _outline(draw, ends, colours[i] if colours else PLAIN, bool(dashed) and dashed[i])
    return small


def _outline(draw: ImageDraw.ImageDraw, ends: tuple[int, int, int, int], colour: Colour, dashed: bool) -> None:
    if not dashed:
        draw.rectangle(ends, outline=colour, width=2)
        return
    left, top, right, bottom = ends
    for x in range(left, right + 1, 2 * DASH):
        for y in (top, max(top, bottom - 1)):
            draw.rectangle((x, y, min(x + DASH - 1, right), min(y + 1, bottom)), fill=colour)
    for y in range(top, bottom + 1, 2 * DASH):
        for x in (left, max(left, right - 1)):
            draw.rectangle((x, y, min(x + 1, right), min(y + DASH - 1, bottom)), fill=colour)


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


def explained(picture: Image.Image, keys: Sequence[Key]) -> Image.Image:
    """A picture over what its lines mean, a row of it for as many as fit beside each other."""
    font, left, top, height = ImageFont.load_default(13), 0, picture.height + GAP // 2, 0
    placed: list[tuple[Key, str, int, int]] = []
    for key in keys:
        sample = SAMPLE if key.colour else 0
        words = textwrap.fill(key.words, max(1, (picture.width - sample) // 7))
        wide = sample + max(round(font.getlength(line)) for line in words.splitlines())
        if left and left + wide > picture.width:
            left, top, height = 0, top + height, 0
        placed.append((key, words, left, top))
        left, height = left + wide + 2 * GAP, max(height, CAPTION * len(words.splitlines()))
    sheet = Image.new("RGB", (picture.width, top + height), "white")
    sheet.paste(picture, (0, 0))
    draw = ImageDraw.Draw(sheet)
    for key, words, x, y in placed:
        if key.colour:
            _outline(draw, (x, y + 3, x + SAMPLE - 8, y + 13), key.colour, key.dashed)
        draw.multiline_text((x + (SAMPLE if key.colour else 0), y), words, fill="black", font=font)
    return sheet


def _fit(size: tuple[int, int], side: int) -> tuple[int, int]:
    scale = side / max(size)
    return (max(1, round(size[0] * scale)), max(1, round(size[1] * scale)))


def overlay(trajectories: Sequence[Trajectory], side: int = SIDE) -> Image.Image:
    """The first box of each rollout of a question, in each picture where there are some, and what the lines mean."""
    first = [(t.turns[0], t.right) for t in trajectories]
    named = [(t.picture or 1, (box, _refused(t), right)) for t, right in first if (box := t.named) is not None]
    panels = []
    for number in sorted({number for number, _ in named}) or [1]:
        image = trajectories[0].originals[number - 1]
        panels.append((f"picture {number}", _group(image, [box for n, box in named if n == number], side)))
    return explained(row(panels) if trajectories[0].others else panels[0][1], GROUP)


def _group(
    image: Original, named: Sequence[tuple[Box, bool, bool]], side: int, original: tuple[int, int] | None = None
) -> Image.Image:
    """Boxes of a group's rollouts: each with whether it was refused, and whether its answer was right."""
    colours = [GOOD if right else BAD for _, _, right in named]
    return framed(image, [box for box, _, _ in named], side, colours, original, [refused for _, refused, _ in named])


def steps(page: Mapping[str, Any], question: int = 0, side: int = 180) -> Image.Image:
    """A question's boxes over a run, step by step; `page` is what `mgpo.gallery.page.read_page` gives."""
    asked = page["questions"][question]
    panels = [(f"step {step}", drawn(asked, group, side)) for step, group in asked["steps"].items()]
    return explained(row(panels), GROUP)


def drawn(question: dict[str, Any], rollouts: Sequence[dict[str, Any]], side: int = SIDE) -> Image.Image:
    """A gallery's small picture of a question with the first boxes of some rollouts; of several that of the first."""
    number, size = shown_picture(question, rollouts)
    picture = from_uri(question["images"][picture_key(number)])
    first = [(turn, r) for r in rollouts for turn, at in [first_box(r) or (0, None)] if at == number]
    named = [(r["named"][turn], r["reasons"][turn] is not None, r["right"]) for turn, r in first]
    return _group(picture, named, side, size)


def from_uri(uri: str) -> Image.Image:
    """The picture that a data URI holds."""
    return Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2]))).convert("RGB")
