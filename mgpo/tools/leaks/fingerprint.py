"""What is kept of an image to find it again."""

import hashlib
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image

from mgpo.images.decoding import Picture

SIDE = 32  # pixels of a thumbnail's side


@dataclass(frozen=True, eq=False)
class Fingerprint:
    """Of one image: digests of its file (where it has one) and of its upright RGB pixels, a hash of its looks."""

    file: str | None
    pixels: str
    looks: int  # 64 bits
    thumbnail: np.ndarray  # (32, 32, 3), 8 bits


def fingerprint(picture: Picture) -> Fingerprint:
    """Load an image and forget it again. Raises BadImage."""
    image = picture.load()
    return Fingerprint(file_digest(picture), pixel_digest(image), difference_hash(image), thumbnail(image))


def file_digest(picture: Any) -> str | None:
    """The SHA-256 of the stored file; None for a picture that has no file, as a drawn one. Raises BadImage."""
    return hashlib.sha256(picture.read()).hexdigest() if hasattr(picture, "read") else None


def pixel_digest(image: Image.Image) -> str:
    """The SHA-256 of size and pixels: the same whatever the format in which they were stored without loss."""
    return hashlib.sha256(f"{image.width}x{image.height}:".encode() + image.tobytes()).hexdigest()


def difference_hash(image: Image.Image) -> int:
    """A hash of looks, 64 bits: of an image of 9 x 8 greys, is each brighter than its left neighbour.

    Scaling hardly changes it.
    """
    small = np.asarray(_shrink(image.convert("L"), (9, 8)), dtype=np.int16)
    bits = (small[:, 1:] > small[:, :-1]).flatten()
    return int.from_bytes(np.packbits(bits).tobytes(), "big")


def thumbnail(image: Image.Image) -> np.ndarray:
    """The image shrunk to (32, 32, 3) in 8 bits, whatever its sides."""
    return np.asarray(_shrink(image, (SIDE, SIDE)))


def _shrink(image: Image.Image, size: tuple[int, int]) -> Image.Image:
    return image.resize(size, Image.Resampling.BOX)
