"""The gallery's small images, as data URIs."""

import base64
import io
from dataclasses import replace

from PIL import Image

from mgpo.images.views import Original, Size, View

PICTURE = 360  # pixels of a picture's longer side on the page
CROP = 112  # of a crop's
QUALITY = 60
GAP = 1.5  # of how many times the final size a quick whole-number reduction comes first


def picture_uri(image: Original) -> str:
    """A small copy of a whole picture, as a data address that a page can embed."""
    return _encode(image.resize(_scaled(image.size, PICTURE / max(image.size)), Image.Resampling.BICUBIC, None, GAP))


def crop_uris(image: Original, first: View, crop: View) -> tuple[str, str]:
    """A crop cut from the original, and the same region in the pixels of the first view.

    The crop is never larger than the policy saw it or than the original has pixels. Where it is shrunk to fit the
    page, so is the other one: between the two images there is the same difference as between the two views.
    """
    x1, y1, x2, y2 = (round(edge) for edge in first.to_input(crop.region))
    x1, y1 = min(x1, first.size[0] - 1), min(y1, first.size[1] - 1)
    x2, y2 = max(x2, x1 + 1), max(y2, y1 + 1)
    # Only this part of the whole picture is resized: with `box` its neighbourhood bleeds in, as it does in the whole.
    part = first.to_original((x1, y1, x2, y2))
    part = (*part[:2], min(part[2], image.size[0]), min(part[3], image.size[1]))  # rounding may lead out of the picture
    blurred = crop.turned(image.resize((x2 - x1, y2 - y1), Image.Resampling.BICUBIC, part))
    pixels = (min(crop.size[0], crop.extent[0]), min(crop.size[1], crop.extent[1]))
    scale = CROP / max(*pixels, *blurred.size)
    sharp = replace(crop, size=_scaled(pixels, scale)).pixels(image)
    return _encode(sharp), _encode(blurred.resize(_scaled(blurred.size, scale), Image.Resampling.BICUBIC))


def _scaled(size: Size, scale: float) -> Size:
    """Shrunk, never enlarged."""
    width, height = (max(1, round(side * min(scale, 1.0))) for side in size)
    return (width, height)


def _encode(image: Image.Image) -> str:
    buffer = io.BytesIO()
    image.save(buffer, "WEBP", quality=QUALITY)
    return "data:image/webp;base64," + base64.b64encode(buffer.getvalue()).decode()
