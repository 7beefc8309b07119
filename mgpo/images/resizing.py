"""The filter through which a model sees pictures: bicubic and antialiased, as in the libraries' own image processors.

Legend of shapes: height, width, channels.
"""

import numpy as np
import torch
from PIL import Image
from torch.nn import functional

Region = tuple[int, int, int, int]  # left, top, right, bottom
Size = tuple[int, int]  # width, height
BAND = 128  # rows


def resized(image: Image.Image, size: Size, region: Region | None = None) -> Image.Image:
    """A picture, or a region of it (left, top, right, bottom), at another (width, height), in RGB.

    Within two levels of 255 it is Pillow's filter, in a fraction of the time; where values are cut off between the two
    passes, as in noise that is enlarged, their order shows. Nothing outside of the region bleeds into its edges. Runs
    in the calling thread, outside of Python's lock.
    """
    left, top, right, bottom = region = region or (0, 0, *image.size)
    return filtered(pixels_of(image, region), size, (right - left, bottom - top))


def pixels_of(image: Image.Image, region: Region) -> np.ndarray:
    """The bytes of a region in RGB, (height, width, 3)."""
    left, top, right, bottom = region
    pixels_HWC = np.empty((bottom - top, right - left, 3), np.uint8)
    for row in range(top, bottom, BAND):  # as a whole it would be copied once more on the way
        band = image.crop((left, row, right, min(row + BAND, bottom)))
        pixels_HWC[row - top : row - top + BAND] = np.asarray(band if band.mode == "RGB" else band.convert("RGB"))
    return pixels_HWC


def filtered(pixels_HWC: np.ndarray, size: Size, extent: tuple[float, float]) -> Image.Image:
    """Bytes at another size; of the last pixels only what lies within `extent`, (width, height), counts.

    Args:
        pixels_HWC: In RGB; a fourth value of a pixel means nothing.
        size: Width and height of what is given.
        extent: How large the picture is in its own pixels.
    """
    # A hair more, because the size comes of them by cutting off.
    scales = [side / whole * (1 + 1e-9) for side, whole in zip(size[::-1], extent[::-1])]
    pixels_1CHW = torch.from_numpy(pixels_HWC).permute(2, 0, 1)[None]
    small_1CHW = functional.interpolate(pixels_1CHW, scale_factor=scales, mode="bicubic", antialias=True)
    return Image.fromarray(small_1CHW[0, :3].permute(1, 2, 0).contiguous().numpy())
