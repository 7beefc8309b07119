"""Which columns look like places in the image, by name or by shape: the method must learn them from answers alone."""

import json
import re
from collections.abc import Collection, Iterable, Mapping
from functools import lru_cache
from itertools import islice
from typing import Any

from mgpo.data.base import DataError

REFUSED = {  # whatever stands in them
    "bbox", "box", "boxes", "bboxes", "bbox_2d", "region", "target_bbox", "coordinates", "point", "points", "mask",
    "xyxy", "polygon", "segmentation",
}  # fmt: skip
PLACES = {  # with two numbers or more in them
    "bbox", "bound", "box", "contour", "coord", "coordinate", "corner", "cxcywh", "keypoint", "landmark", "ltrb",
    "point", "poly", "polygon", "polyline", "quad", "quadrilateral", "rect", "rectangle", "region", "roi", "tlbr",
    "vertice", "xywh", "xyxy",
}  # fmt: skip
MASKS = {"mask", "rle", "segmentation"}  # whatever stands in them, within an object too
PARTS = re.compile("bbox|boundingbox|xyxy|xywh|polygon|keypoint|rectangle|segmentation")
SIDES = tuple(
    frozenset(sides.split())
    for sides in (
        "x1 y1 x2 y2", "x0 y0 x1 y1", "xmin ymin xmax ymax", "minx miny maxx maxy", "left top right bottom", "x y w h",
        "x y width height", "left top width height", "cx cy w h", "xc yc w h", "xcenter ycenter width height",
        "centerx centery width height",
    )
)  # fmt: skip
MARKED = re.compile(r"</?\|?(?:b?box|quad|ref|point|poly)(?:_start|_end)?\|?>|<loc_?\d+>", re.IGNORECASE)
NUMBER = re.compile(r"[-+]?(?:\d+(?:\.\d*)?|\.\d+)(?:e[-+]?\d+)?", re.IGNORECASE)
FOUR = re.compile(
    rf"[\s\[({{<]*{NUMBER.pattern}(?:[\s,;|\])}}(>\[{{<]+{NUMBER.pattern}){{3}}[\s\])}}>]*", re.IGNORECASE
)
LONGEST = 100_000  # characters of a text that is looked at
MOST = 100  # elements of a list that are looked at
DEEPEST = 64  # lists and objects in each other


class Annotations:
    """Looks at the cells of rows that are not read for a question, and remembers what looks like places.

    By name, a column or a key within it: "gt_box", "meta.bbox". By shape, if all that a column holds looks like that:
    four numbers, lists of such or of points, also where they stand in a text; "x1", "y1", "x2", "y2" together.
    """

    def __init__(self) -> None:
        self.named: dict[str, str] = {}  # columns, each with the path of what was found
        self.shapes: dict[tuple[str, str], bool] = {}  # columns and paths: whether all their values look like places
        self.numbers: set[str] = set()  # columns of single numbers

    def look(self, row: Mapping[str, Any]) -> None:
        """Take a row's cells into account. Raises DataError where they are nested too deep."""
        for column, value in row.items():
            if column.lower() in REFUSED:
                self.named[column] = column
            elif isinstance(_unquoted(value), int | float):
                self.numbers.add(column)
            else:
                try:
                    self._visit(column, column, column, value)
                except RecursionError:
                    raise too_deep(column) from None

    def found(self) -> dict[str, str]:
        """Columns that look like places in the image, each with the path within it."""
        shaped = {column: path for (column, path), every in self.shapes.items() if every}
        return {**shaped, **{name: name for name in _sides(self.numbers)}, **self.named}

    def _visit(self, column: str, path: str, name: str, value: Any, depth: int = 1) -> None:
        if depth > DEEPEST:
            raise too_deep(column)
        text, value = value if isinstance(value, str) else None, _unquoted(value)
        if value is None or value in ("", [], {}) or column in self.named:
            return
        if _is_named(name, value, text) or (isinstance(value, dict) and _has_sides(value)):
            self.named[column] = path
        elif isinstance(value, dict):
            for key, inner in islice(value.items(), MOST):
                self._visit(column, f"{path}.{key}"[:120], str(key), inner, depth + 1)
        elif isinstance(value, list) and not _is_place(value) and any(isinstance(v, dict | list | str) for v in value):
            for inner in value[:MOST]:
                self._visit(column, path, name, inner, depth + 1)
        else:
            place = _is_place(value) or (text is not None and bool(MARKED.search(text) or FOUR.fullmatch(text)))
            self.shapes[column, path] = place and self.shapes.get((column, path), True)


def too_deep(column: str) -> DataError:
    """What is said of a column whose cells nobody looks to the end of."""
    return DataError(f"column {column[:60]}: lists or objects are nested more than {DEEPEST} deep")


def refuse(name: str, found: Mapping[str, str]) -> None:
    """Raises DataError where there are columns that look like places in the image."""
    if found:
        column, path = next(iter(found.items()))
        drop = ", ".join(islice((column[:40] for column in found), 6))
        raise DataError(
            f"{name}: column {path[:60]!r} holds places in the image, or seems to, and this method must learn them "
            f"from answers alone; remove {column[:60]!r}, or name it in drop_columns: [{drop}]"
        )


def is_mask(name: str) -> bool:
    """Whether a name says that a picture, a file or a code in it covers a part of the image."""
    return bool(_words(name) & MASKS) or "segmentation" in name.lower()


@lru_cache(4096)
def _words(name: str) -> frozenset[str]:
    """The words of a name, in the singular and without digits: "gtBoxes_2d" gives gt, box, d."""
    parts = re.findall(r"[a-z]+", re.sub(r"(?<=[a-z0-9])(?=[A-Z])", " ", name).lower())
    return frozenset(form for part in parts for form in (part, part.removesuffix("s"), part.removesuffix("es")))


def _is_named(name: str, value: Any, text: str | None) -> bool:
    if is_mask(name):
        return not isinstance(value, bool)
    if not (_words(name) & PLACES or PARTS.search(re.sub(r"[^a-z]", "", name.lower()))):
        return False
    return len(NUMBER.findall(text[:LONGEST])) > 1 if text is not None else _count(value) > 1


def _count(value: Any) -> int:
    """How many numbers there are in a value, of which the first hundred of each list are looked at."""
    if isinstance(value, dict | list):
        inner: Iterable[Any] = value.values() if isinstance(value, dict) else value
        return sum(_count(part) for part in islice(inner, MOST))
    return int(_is_number(value)) or (len(NUMBER.findall(value[:1000])) if isinstance(value, str) else 0)


def _is_place(value: Any) -> bool:
    """Four numbers; or a list of such, of long even lists (polygons), or of two pairs and more."""
    if not isinstance(value, list) or not value:
        return False
    if all(map(_is_number, value)):
        return len(value) == 4
    parts = [part for part in value[:MOST] if isinstance(part, list) and part]
    if len(parts) < len(value[:MOST]):
        return False
    flat = all(_is_number(number) for part in parts for number in part[:MOST])
    lengths = {len(part) for part in parts}
    if flat:
        return lengths == {4} or (lengths == {2} and len(parts) > 1) or all(n >= 6 and n % 2 == 0 for n in lengths)
    return all(map(_is_place, parts))


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _unquoted(value: Any) -> Any:
    """What a text of JSON, or of a number, says; other values as they are."""
    if (
        isinstance(value, str)
        and len(value) <= LONGEST
        and (value.lstrip()[:1] in ("[", "{") or NUMBER.fullmatch(value))
    ):
        try:
            return json.loads(value)
        except (ValueError, RecursionError):
            return value
    return value


def _has_sides(value: Mapping[str, Any]) -> bool:
    return bool(_sides([str(key) for key, inner in value.items() if _is_number(_unquoted(inner))]))


def _sides(names: Collection[str]) -> list[str]:
    """Those of the names that are the sides of a box together: "x1", …; "bbox_xmin", …"""
    ends: dict[str, str] = {}
    for name in names:
        parts = re.findall(r"[a-z]+\d?", name.lower())
        ends |= {"".join(parts[-2:]): name, **({parts[-1]: name} if parts else {})}
    return next((sorted(ends[side] for side in sides) for sides in SIDES if sides <= set(ends)), [])
