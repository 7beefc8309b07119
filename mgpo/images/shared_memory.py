"""Pixels in memory that processes share: sending them copies nothing, and a crop reads its own region only."""

import mmap
import os
import tempfile
import threading
import weakref
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from multiprocessing.reduction import DupFd
from typing import Any

import numpy as np
from PIL import Image

from mgpo.images.resizing import Region, filtered
from mgpo.images.views import Box, Size

BYTES = 4  # of a pixel of Pillow's RGB


class Block:
    """Nameless memory behind a descriptor; it goes when its last user does.

    It is no part of /dev/shm, which is small in containers, and it is filled by writing: where there is no room
    that is an error, and never a bus error later.
    """

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor
        self.bytes = mmap.mmap(descriptor, 0, access=mmap.ACCESS_READ)
        weakref.finalize(self, _let_go, descriptor, self.bytes).atexit = False

    def __reduce__(self) -> tuple[Any, ...]:
        return _received, (DupFd(self.descriptor),)


def _let_go(descriptor: int, pages: mmap.mmap) -> None:
    """Give the memory back in a thread: for a batch of large pictures that takes the system a twentieth of a step."""

    def close() -> None:
        pages.close()
        os.close(descriptor)

    threading.Thread(target=close, name="shared pictures").start()


def _received(handle: Any) -> Block:
    return Block(handle.detach())


@dataclass(frozen=True, eq=False)
class SharedImage:
    """An RGB image in a block, with what `mgpo.images.views.Original` asks of it; a box must lie inside.

    It lies there as Pillow holds it, with a fourth byte a pixel: such rows are copied, not converted.
    """

    block: Block
    start: int
    size: Size

    def crop(self, box: Box) -> Image.Image:
        """A copy of the part in a box, (left, top, right, bottom) in pixels, rounded; other rows are not read."""
        pixels_HWC = self._part(box)
        return Image.frombytes("RGB", pixels_HWC.shape[1::-1], pixels_HWC, "raw", "RGBX")

    def seen(self, region: Region, size: Size) -> Image.Image:
        """The region at another size, by the filter of `mgpo.images.resizing`."""
        return filtered(self._part(region), size, (region[2] - region[0], region[3] - region[1]))

    def resize(
        self, size: Size, resample: int, box: Box | None = None, reducing_gap: float | None = None
    ) -> Image.Image:
        """As Pillow's `resize`, on a copy of the whole."""
        return self.crop((0, 0, *self.size)).resize(size, resample, box, reducing_gap)

    def _part(self, box: Box) -> np.ndarray:
        left, top, right, bottom = map(round, box)
        width, height = self.size
        pixels_HWC = np.frombuffer(self.block.bytes, np.uint8, BYTES * width * height, self.start)
        return pixels_HWC.reshape(height, width, BYTES)[top:bottom, left:right].copy()


def share(images: Sequence[Image.Image]) -> list[SharedImage]:
    """RGB images, copied into one block. Raises OSError where there is no room."""
    block = Block(_written(images))
    *starts, _ = accumulate((BYTES * image.width * image.height for image in images), initial=0)
    return [SharedImage(block, start, image.size) for start, image in zip(starts, images)]


def _written(images: Sequence[Image.Image]) -> int:
    descriptor = _nameless()
    try:
        with open(descriptor, "wb", closefd=False) as file:
            for image in images:
                file.write(image.tobytes("raw", "RGBX"))
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def _nameless() -> int:
    if hasattr(os, "memfd_create"):  # Linux
        return os.memfd_create("mgpo")
    with tempfile.TemporaryFile() as file:
        return os.dup(file.fileno())
