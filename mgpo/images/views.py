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

Box = tuple[float, float, float, float]  # x1, y1, x2, y2
Size = tuple[int, int]  # width, height
Resize = Callable[[Size], Size]  # the size at which a model sees an image of that size


class Original(Protocol):
    """What views are cut from: a PIL image, or a picture that is decoded no further than it is needed (`lazy.py`).

    The methods are those of a PIL image.
    """

    @property
    def size(self) -> Size: ...

    def crop(self, box: Box) -> Image.Image: ...

    def resize(
        self, size: Size, resample: int, box: Box | None = None, reducing_gap: float | None = None
    ) -> Image.Image: ...


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
    """A region of the original, in its pixels, and the (width, height) at which the model sees it."""

    region: tuple[int, int, int, int]
    size: Size

    @classmethod
    def full(cls, original: Size, resize: Resize) -> "View":
        """The first view: all of the original."""
        return cls((0, 0, *original), resize(original))

    def to_original(self, box: Box) -> Box:
        """From input pixels of this view to pixels of the original: box / size_input * size_region + offset."""
        left, top, right, bottom = self.region
        sx, sy = (right - left) / self.size[0], (bottom - top) / self.size[1]
        return (left + box[0] * sx, top + box[1] * sy, left + box[2] * sx, top + box[3] * sy)

    def to_input(self, box: Box) -> Box:
        """From pixels of the original to input pixels of this view."""
        left, top, right, bottom = self.region
        sx, sy = self.size[0] / (right - left), self.size[1] / (bottom - top)
        return ((box[0] - left) * sx, (box[1] - top) * sy, (box[2] - left) * sx, (box[3] - top) * sy)

    def crop(self, box: Box, resize: Resize) -> "View":
        """The view of a box given in input pixels of this one; never smaller than one pixel of the original.

        Edges are rounded outwards to whole pixels of the original: nothing that the box touches is lost.
        """
        x1, y1, x2, y2 = self.to_original(box)
        left, top, right, bottom = self.region
        # 1e-6 of a pixel is rounding noise of the map itself, not content.
        x1 = min(max(math.floor(x1 + 1e-6), left), right - 1)
        y1 = min(max(math.floor(y1 + 1e-6), top), bottom - 1)
        x2 = max(min(math.ceil(x2 - 1e-6), right), x1 + 1)
        y2 = max(min(math.ceil(y2 - 1e-6), bottom), y1 + 1)
        return View((x1, y1, x2, y2), resize((x2 - x1, y2 - y1)))

    def pixels(self, original: Original) -> Image.Image:
        """Cut the region from the original and resize it once (bicubic, antialiased)."""
        # Cut first: resizing with a box would let the neighbourhood bleed into the edges.
        part = original if self.region == (0, 0, *original.size) else original.crop(self.region)
        return part.resize(self.size, Image.Resampling.BICUBIC)


@dataclass(frozen=True)
class VisionResolution:
    """How a policy sees: the frame of its coordinates, and the sizes at which it sees full images and crops."""

    frame: Frame
    full: Resize
    crop: Resize
