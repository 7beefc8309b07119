"""Boxes in what a model wrote: find them, and say whether the first usable one may be cut out.

Model output is hostile text: it is searched with a few bounded patterns, never evaluated, and
nothing here raises.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import Literal

from mgpo.answers.thoughts import spoken
from mgpo.errors import UserError
from mgpo.images.views import Box, Frame, Size

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
IN_WORDS: dict[Reason, str] = {  # for people; what the model is told are the REASONS, which its weights know
    "no_box": "the reply names no box",
    "not_four": "the reply has a list of numbers, but not the four of a box",
    "outside": "the box reaches over the picture's edge",
    "inverted": "its left edge lies right of its right edge, or its upper edge below its lower one",
    "too_small": "the box is too small: one of its sides is too short",
    "too_thin": "the box is too long and thin",
    "no_picture": "there is no picture of that number",
}
LONGEST_REPLY = 20_000  # characters searched; a box stands far in front of that
MOST_LISTS = 200  # that are looked at
_NUMBER = r"[-+]?\d{1,9}(?:\.\d{1,17})?"
_ENTRY = rf"(?:[\"'] ?{_NUMBER} ?[\"']|{_NUMBER})"
_LIST = re.compile(rf"[\[(] ?({_ENTRY}(?: ?, ?{_ENTRY}){{0,15}}) ?,? ?[\])]")
# Two corners, "(10, 20), (110, 120)" or [[10, 20], [110, 120]]; more points in a row are no box.
_POINT = rf"[\[(] ?{_ENTRY} ?, ?{_ENTRY} ?[\])]"
_POINTS = re.compile(rf"{_POINT}(?: ?,? ?{_POINT}){{1,15}}")
# Four numbers without brackets: <box>10, 20, 110, 120</box>, "bbox_2d": "10, 20, 110, 120"
_BARE = re.compile(
    rf"(?:box(?:_start)?\|?>|_2d[\"'] ?: ?[\"']|box[\"'] ?: ?[\"']) ?({_NUMBER}(?: ?, ?{_NUMBER}){{3}}) ?[<\"']"
)
_SIDES = (
    ("x1", "y1", "x2", "y2"), ("x_1", "y_1", "x_2", "y_2"), ("x0", "y0", "x1", "y1"), ("xmin", "ymin", "xmax", "ymax"),
    ("x_min", "y_min", "x_max", "y_max"), ("left", "top", "right", "bottom"), ("x", "y", "width", "height"),
    ("x", "y", "w", "h"),
)  # fmt: skip
_SIDE = re.compile(rf"\b([xylrtbwh]\w{{0,5}})[\"']? ?[:=] ?({_ENTRY})(?!\d|\.\d)", re.IGNORECASE)  # "x1": 10, left=10
# What tells in which JSON object a number stands: braces outside of texts, and the number itself.
_NAMING = re.compile(
    r"(?P<open>\{)|(?P<close>\})|[\"']picture[\"'] ?: ?[\"']?(?P<number>[-+]?\d{1,9})|: ?\"(?:[^\"\\]|\\.){0,200}\""
)
_KEY = re.compile(r"bbox_2d|[\"'](?:b?box(?:es)?|b?box_2d|bboxes|bounding_?box)[\"'] ?:|<\|?box", re.IGNORECASE)


@dataclass(frozen=True)
class BoxRule:
    """The published validity rule (section 3.3 and the reference setting), in pixels of the input image.

    Args:
        min_side: Both sides must be longer than this; the published value is one merged patch.
        max_aspect: The longer side over the shorter must be below this.
        clip: Cut a box that runs past the picture's edge to the picture, and judge what is left of it. The
            published rule refuses it.
    """

    min_side: float = 28
    max_aspect: float = 100
    clip: bool = False

    def __post_init__(self) -> None:
        if not (self.min_side >= 0 and self.max_aspect > 1):
            raise UserError(
                f"dialogue.rule.min_side is {self.min_side} and max_aspect {self.max_aspect}; the one is at least 0, "
                "the other above 1"
            )

    def judge(self, box: Box, size: Size) -> "ParsedBox":
        """Whether a box in input pixels may be cut from an input image of that size, and which part of it."""
        inside = self._clipped(box, size) if self.clip else box
        reason = self.refuse(inside, size)
        if reason is not None:
            return ParsedBox(None, reason, box)
        return ParsedBox(inside, None, box, inside != box if self.clip else None)

    def _clipped(self, box: Box, size: Size) -> Box:
        """What of a box lies in the picture; the box itself where that is nothing, or where it is inverted."""
        x1, y1, x2, y2 = box
        inside = (max(x1, 0.0), max(y1, 0.0), min(x2, float(size[0])), min(y2, float(size[1])))
        return inside if inside[0] < inside[2] and inside[1] < inside[3] else box

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
class ParsedBox:
    """The first valid box of a reply, in input pixels, or the reason why the first candidate was refused.

    `candidate` is the box that was judged, where there was one, so that refused boxes can be drawn too. `picture` is
    the one that it is in, counted from 0.
    """

    box: Box | None
    reason: Reason | None
    candidate: Box | None = None
    clipped: bool | None = None  # whether it was cut to the picture; None where the rule does not clip
    picture: int = 0


def number_lists(text: str) -> list[tuple[float, ...]]:
    """The bracketed lists of 1 to 16 numbers, in order; those behind a key such as "bbox_2d" alone where one is named.

    One pattern covers what models really write: fenced or bare JSON on one line or several, one object or several,
    nested lists, floats, numbers in quotes, text before and after, and JSON that was cut off behind the box.
    """
    return [numbers for _, numbers in _lists(*_searched(text))]


def box_candidates(text: str) -> list[Box]:
    """Everything in a reply that has the shape of a box, in order, valid or not.

    Lists of four numbers, two corners, or sides by name: {"x1": …}, {"left": …}, {"x": …, "width": …}.
    """
    return [box for box, _ in numbered_boxes(text)]


def numbered_boxes(text: str) -> list[tuple[Box, int]]:
    """The boxes of `box_candidates`, each with the number of the picture that it is in.

    That is the {"picture": n} of the innermost JSON object around the box that has one, or one that stands outside of
    all objects; else 1.
    """
    text, start = _searched(text)
    found = [(at, (n[0], n[1], n[2], n[3])) for at, n in _lists(text, start) if len(n) == 4]
    found += _corners(text, start) + _sides(text, start)
    found += [(match.start(), _four(match[1])) for match in islice(_BARE.finditer(text, start), MOST_LISTS)]
    namings = _namings(text)
    return [(box, next((n for n, begin, end in namings if begin <= at < end), 1)) for at, box in sorted(found)]


def parse_box(
    text: str, size: Size, frame: Frame = Frame.PIXELS, rule: BoxRule = BoxRule(), others: Sequence[Size] = ()
) -> ParsedBox:
    """The first valid box in a reply about an input image of `size`, thoughts aside. Never raises.

    `others` are the sizes of further input images, numbered from 2 on, in which a box may be by its "picture".
    """
    text, sizes = spoken(text), (size, *others)
    first: ParsedBox | None = None
    for candidate, number in numbered_boxes(text):
        parsed_box = ParsedBox(None, "no_picture")
        if 1 <= number <= len(sizes):
            seen = sizes[number - 1]
            parsed_box = replace(rule.judge(frame.to_pixels(candidate, seen), seen), picture=number - 1)
        if parsed_box.box is not None:
            return parsed_box
        first = first or parsed_box
    return first or ParsedBox(None, "not_four" if number_lists(text) else "no_box")


def _searched(text: str) -> tuple[str, int]:
    """The text with single spaces, and where its boxes begin: at "bbox_2d", or a key like it, where there is one."""
    text = re.sub(r"\s+", " ", text[:LONGEST_REPLY])
    key = text.find("bbox_2d")
    if key < 0 and (like := _KEY.search(text)):
        key = like.start()
    return text, max(key, 0)


def _namings(text: str) -> list[tuple[int, int, int]]:
    """Each "picture": n as (n, where the object around it begins, where that ends), the innermost first."""
    found: list[tuple[int, int, int]] = []
    begun: list[tuple[int, list[int]]] = [(0, [])]  # objects that have not ended, and the numbers in each; first: none
    for match in _NAMING.finditer(text):
        if match["open"]:
            begun.append((match.start(), []))
        elif match["number"] and len(found) < MOST_LISTS:
            begun[-1][1].append(int(match["number"]))
        elif match["close"] and len(begun) > 1:
            begin, numbers = begun.pop()
            found += [(number, begin, match.end()) for number in numbers[:1]]
    return found + [(number, begin, len(text)) for begin, numbers in reversed(begun) for number in numbers[:1]]


def _lists(text: str, start: int) -> list[tuple[int, tuple[float, ...]]]:
    return [(m.start(), _numbers(m[1])) for m in islice(_LIST.finditer(text, start), MOST_LISTS)]


def _corners(text: str, start: int) -> list[tuple[int, Box]]:
    """Boxes that are two points, and nothing but two."""
    points = [
        (m.start(), _numbers(re.sub(r"[\])] ?,? ?[\[(]", ",", m[0])[1:-1])) for m in _POINTS.finditer(text, start)
    ]
    return [(at, (n[0], n[1], n[2], n[3])) for at, n in points if len(n) == 4]


def _sides(text: str, start: int) -> list[tuple[int, Box]]:
    """Boxes whose sides are named, each once and in any order."""
    found: list[tuple[int, Box]] = []
    began: dict[tuple[str, ...], dict[str, float]] = {}
    for match in islice(_SIDE.finditer(text, start), 4 * MOST_LISTS):
        side = match[1].lower()
        for names in (names for names in _SIDES if side in names):
            sides = began.get(names, {})
            began[names] = {**(sides if side not in sides else {}), side: _numbers(match[2])[0]}
            if len(began[names]) == len(names):
                x, y, right, bottom = (began[names][name] for name in names)
                extent = names[2] in ("width", "w")
                found.append((match.start(), (x, y, x + right, y + bottom) if extent else (x, y, right, bottom)))
                began = {}
                break
    return found


def _four(text: str) -> Box:
    x1, y1, x2, y2 = _numbers(text)
    return x1, y1, x2, y2


def _numbers(text: str) -> tuple[float, ...]:
    return tuple(float(number.strip(" \"'")) for number in text.split(","))
