"""What is shown in place of a crop: nothing, noise, another part, the same part without its detail, the whole."""

from dataclasses import replace

import numpy as np
from PIL import Image

from mgpo.images.views import Original, View
from mgpo.rollout.crops import Swap


def black(image: Original, view: View, first: View) -> Image.Image:
    """Nothing to be seen, at the crop's size."""
    return Image.new("RGB", view.size)


def noise(image: Original, view: View, first: View) -> Image.Image:
    """Every pixel drawn by itself, at the crop's size; the draws follow from the region alone."""
    pixels = np.random.default_rng(view.region).integers(0, 256, (view.size[1], view.size[0], 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def random_region(image: Original, view: View, first: View) -> Image.Image:
    """Another region of the same size, seen alike; which one follows from the true region alone."""
    left, top, right, bottom = view.region
    rng = np.random.default_rng(view.region)
    x, y = (int(rng.integers(side - part + 1)) for side, part in zip(image.size, (right - left, bottom - top)))
    return replace(view, region=(x, y, x + right - left, y + bottom - top)).pixels(image)


def enlarged(image: Original, view: View, first: View) -> Image.Image:
    """The same region in the pixels of the first view, as large as the crop: nothing new is to be seen."""
    return view.seen_in(first, image)


def original(image: Original, view: View, first: View) -> Image.Image:
    """The whole picture that the part is of once more, as in the first turn."""
    return first.pixels(image)


def same_region_of(other: Original) -> Swap:
    """The region of another picture that lies where the crop's does in its own, as shares of the sides."""

    def swap(image: Original, view: View, first: View) -> Image.Image:
        scales = [theirs / ours for theirs, ours in zip(other.size, image.size)] * 2
        left, top, right, bottom = (round(edge * scale) for edge, scale in zip(view.region, scales))
        left, top = min(left, other.size[0] - 1), min(top, other.size[1] - 1)
        region = (left, top, max(right, left + 1), max(bottom, top + 1))
        return replace(view, region=region).pixels(other)

    return swap


def part(named: View, of: Original) -> Swap:
    """Another part, of the same or another of the question's pictures, at the size at which it is seen itself."""

    def swap(image: Original, view: View, first: View) -> Image.Image:
        return named.pixels(of)

    return swap


def unblacked(image: Original, view: View, first: View) -> Image.Image:
    """The crop itself, out of what `BlackFirst` hides."""
    assert isinstance(image, BlackFirst)
    return view.pixels(image.image)


class BlackFirst:
    """An original whose whole is seen black, and whose parts are cut out as ever.

    Args:
        image: Where the parts come from.
    """

    def __init__(self, image: Original) -> None:
        self.image, self.size = image, image.size

    def crop(self, box: tuple[float, float, float, float]) -> Image.Image:
        """A part, from the true pixels."""
        return self.image.crop(box)

    def resize(
        self,
        size: tuple[int, int],
        resample: int,
        box: tuple[float, float, float, float] | None = None,
        reducing_gap: float | None = None,
    ) -> Image.Image:
        """Nothing to be seen, at that size."""
        return Image.new("RGB", size)

    def seen(self, region: tuple[int, int, int, int], size: tuple[int, int]) -> Image.Image:
        """Nothing to be seen of the whole; a part, from the true pixels."""
        if region == (0, 0, *self.size):
            return Image.new("RGB", size)
        return View(region, size).pixels(self.image)
