"""Boxes in what a model wrote: find them, and say whether the first usable one may be cut out.

Model output is hostile text: it is searched with one bounded pattern, never evaluated, and nothing
here raises.
"""

import re
from dataclasses import dataclass
from itertools import islice
from typing import Literal

from mgpo.views import Box, Frame, Size

Reason = Literal["no_box", "not_four", "outside", "inverted", "too_small", "too_thin", "no_picture"]
REASONS: dict[Reason, str] = {
    "no_box": "the reply holds no list of numbers",
    "not_four": "the list does not hold four numbers",
    "outside": "the box leaves the image",
    "inverted": "x1 < x2 and y1 < y2 do not hold",
    "too_small": "a side of the box is too short",
    "too_thin": "the box is too long and thin",
    "no_picture": "there is no picture of that number",
}
LONGEST_REPLY = 20_000  # characters searched; a box stands far in front of that
MOST_LISTS = 200  # that are looked at
_NUMBER = r"[-+]?\d{1,9}(?:\.\d{1,17})?"
_LIST = re.compile(rf"[\[(]\s{{0,9}}({_NUMBER}(?:\s{{0,9}},\s{{0,9}}{_NUMBER}){{0,15}})\s{{0,9}},?\s{{0,9}}[\])]")


@dataclass(frozen=True)
class BoxRule:
    """The published validity rule (section 3.3 and the reference setting), in pixels of the input image.

    Args:
        min_side: Both sides must be longer than this; the published value is one merged patch.
        max_aspect: The longer side over the shorter must be below this.
    """

    min_side: float = 28
    max_aspect: float = 100

    def refuse(self, box: Box, size: Size) -> Reason | None:
        """Why a box in input pixels may not be cut from an input image of that size; None when it may."""
        x1, y1, x2, y2 = box
        if x1 >= x2 or y1 >= y2:
            return "inverted"
        if x1 < 0 or y1 < 0 or x2 > size[0] or y2 > size[1]:
            return "outside"
        width, height = x2 - x1, y2 - y1
        if max(width, height) >= self.max_aspect * min(width, height):
            return "too_thin"
        return "too_small" if min(width, height) <= self.min_side else None


@dataclass(frozen=True)
class Finding:
    """The first valid box of a reply, in input pixels, or the reason why the first candidate was refused.

    `candidate` is the box that was judged, where there was one, so that refused boxes can be drawn too.
    """

    box: Box | None
    reason: Reason | None
    candidate: Box | None = None


def number_lists(text: str) -> list[tuple[float, ...]]:
    """The bracketed lists of 1 to 16 numbers, in order; those behind a "bbox_2d" key alone where one is named.

    One pattern covers what models really write: fenced or bare JSON, one object or several, nested
    lists, floats, text before and after, and JSON that was cut off behind the box.
    """
    text = text[:LONGEST_REPLY]
    key = text.find("bbox_2d")
    found = islice(_LIST.finditer(text, max(key, 0)), MOST_LISTS)
    # Stripped, because the pattern's white space is more than float's.
    return [tuple(float(n.strip()) for n in match[1].split(",")) for match in found]


def find_box(text: str, size: Size, frame: Frame = Frame.PIXELS, rule: BoxRule = BoxRule()) -> Finding:
    """The first valid box in a reply about an input image of `size`. Never raises."""
    lists = number_lists(text)
    first: Finding | None = None
    for numbers in lists:
        if len(numbers) != 4:
            continue
        box = frame.to_pixels((numbers[0], numbers[1], numbers[2], numbers[3]), size)
        reason = rule.refuse(box, size)
        if reason is None:
            return Finding(box, None, box)
        first = first or Finding(None, reason, box)
    return first or Finding(None, "not_four" if lists else "no_box")
