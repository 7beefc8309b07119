"""Views: which part of the original the model sees, and at what size.

The only place that maps the coordinates a model writes to pixels of the original. A box goes
frame units -> input pixels -> original pixels; a crop of a crop is a View like any other, whose
region is again in pixels of the *original*, so nesting loses nothing (paper, section 3.3).
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import Protocol

from PIL import Image

from mgpo.images.resizing import Region, Size, resized

Box = tuple[float, float, float, float]  # x1, y1, x2, y2
Resize = Callable[[Size], Size]  # the size at which a model sees an image of that size


class PartialImage(Protocol):
    """An original that need not be there as a whole: it is decoded no further than it is needed (`lazy.py`), or lies
    in memory of another process. But for `seen` its methods are those of a PIL image.
    """

    @property
    def size(self) -> Size:
        """Width and height in pixels."""
        ...

    def crop(self, box: Box) -> Image.Image:
        """The part in a box, (left, top, right, bottom) in pixels."""
        ...

    def resize(
        self, size: Size, resample: int, box: Box | None = None, reducing_gap: float | None = None
    ) -> Image.Image:
        """The whole, or the part in `box`, at another size, by one of Pillow's filters."""
        ...

    def seen(self, region: Region, size: Size) -> Image.Image:
        """What `View(region, size).pixels` gives of the same original as a PIL image."""
        ...


Original = Image.Image | PartialImage  # what views are cut from


class Frame(Enum):
    """The units in which a model family writes coordinates."""

    PIXELS = "pixels"  # of the resized input image (Qwen2.5-VL)
    THOUSAND = "thousand"  # 0 to 1000 over each side (Qwen3-VL)
    UNIT = "unit"  # 0 to 1 over each side

    def to_pixels(self, box: Box, size: Size) -> Box:
        """From this frame to pixels of an input image of that size."""
        sx, sy = self._scale(size)
        return (box[0] * sx, box[1] * sy, box[2] * sx, box[3] * sy)

    def from_pixels(self, box: Box, size: Size) -> Box:
        """From pixels of an input image of that size to this frame."""
        sx, sy = self._scale(size)
        return (box[0] / sx, box[1] / sy, box[2] / sx, box[3] / sy)

    def _scale(self, size: Size) -> tuple[float, float]:
        units = {Frame.PIXELS: None, Frame.THOUSAND: 1000.0, Frame.UNIT: 1.0}[self]
        return (1.0, 1.0) if units is None else (size[0] / units, size[1] / units)


@dataclass(frozen=True)
class View:
    """A region of an original, in its pixels, and the (width, height) at which the model sees it.

    It is seen turned clockwise by `turn` quarter turns; `size` is that of the turned picture. `picture` says which of
    a question's pictures the original is, counted from 0.
    """

    region: Region
    size: Size
    turn: int = 0
    picture: int = 0

    @classmethod
    def full(cls, original: Size, resize: Resize, picture: int = 0) -> "View":
        """The first view of a picture: all of its original."""
        return cls((0, 0, *original), resize(original), picture=picture)

    @property
    def extent(self) -> Size:
        """Width and height of the region as it lies when it is seen, in pixels of the original."""
        left, top, right, bottom = self.region
        return _turned_size((right - left, bottom - top), self.turn)

    def to_original(self, box: Box) -> Box:
        """From input pixels of this view to pixels of the original: box / size_input * size_region + offset."""
        left, top, _, _ = self.region
        sx, sy = self.extent[0] / self.size[0], self.extent[1] / self.size[1]
        scaled = (box[0] * sx, box[1] * sy, box[2] * sx, box[3] * sy)
        x1, y1, x2, y2 = _turned(scaled, self.extent, -self.turn)
        return (left + x1, top + y1, left + x2, top + y2)

    def to_input(self, box: Box) -> Box:
        """From pixels of the original to input pixels of this view."""
        left, top, right, bottom = self.region
        sx, sy = self.size[0] / self.extent[0], self.size[1] / self.extent[1]
        inside = (box[0] - left, box[1] - top, box[2] - left, box[3] - top)
        x1, y1, x2, y2 = _turned(inside, (right - left, bottom - top), self.turn)
        return (x1 * sx, y1 * sy, x2 * sx, y2 * sy)

    def crop(self, box: Box, resize: Resize, turn: int = 0) -> "View":
        """The view of a box given in input pixels of this one, turned further clockwise by so many quarter turns.

        Edges are rounded outwards to whole pixels of the original: nothing that the box touches is lost. What lies
        outside of this view is, and what is left is never smaller than one pixel of the original.
        """
        x1, y1, x2, y2 = self.to_original(box)
        left, top, right, bottom = self.region
        # 1e-6 of a pixel is rounding noise of the map itself, not content.
        x1 = min(max(math.floor(x1 + 1e-6), left), right - 1)
        y1 = min(max(math.floor(y1 + 1e-6), top), bottom - 1)
        x2 = max(min(math.ceil(x2 - 1e-6), right), x1 + 1)
        y2 = max(min(math.ceil(y2 - 1e-6), bottom), y1 + 1)
        turn = (self.turn + turn) % 4
        return View((x1, y1, x2, y2), resize(_turned_size((x2 - x1, y2 - y1), turn)), turn, self.picture)

    def cut(self, original: Original) -> Image.Image:
        """The region as it lies when it is seen, as large as it is in the original."""
        return self.turned(original.crop(self.region))

    def turned(self, region: Image.Image) -> Image.Image:
        """A picture of the region, turned as it is seen."""
        return region if self.turn % 4 == 0 else region.transpose(_CLOCKWISE[self.turn % 4])

    def pixels(self, original: Original) -> Image.Image:
        """Cut the region from the original and resize it once (bicubic, antialiased)."""
        # Cut first: resizing with a box would let the neighbourhood bleed into the edges.
        if self.turn % 4:
            return resized(self.cut(original), self.size)
        if isinstance(original, Image.Image):
            return resized(original, self.size, self.region)
        return original.seen(self.region, self.size)

    def seen_in(
        self, other: "View", original: Original, resample: Image.Resampling = Image.Resampling.BICUBIC
    ) -> Image.Image:
        """The region in the pixels that an unturned view around it has of it, at this view's size."""
        lying = _turned_size(self.size, self.turn)
        return self.turned(other.pixels(original).resize(lying, resample, box=other.to_input(self.region)))


_CLOCKWISE = {1: Image.Transpose.ROTATE_270, 2: Image.Transpose.ROTATE_180, 3: Image.Transpose.ROTATE_90}


def _turned_size(size: Size, turn: int) -> Size:
    return size if turn % 2 == 0 else (size[1], size[0])


def _turned(box: Box, size: Size, turn: int) -> Box:
    """A box on a picture of `size` as it lies when that is turned clockwise; an inverted one stays inverted."""
    for _ in range(turn % 4):
        box = (size[1] - box[3], box[0], size[1] - box[1], box[2])
        size = (size[1], size[0])
    return box


@dataclass(frozen=True)
class VisionResolution:
    """How a policy sees: the frame of its coordinates, and the sizes at which it sees full images and crops.

    Each of several pictures is seen at the size that `full` gives for it.
    """

    frame: Frame
    full: Resize
    crop: Resize
