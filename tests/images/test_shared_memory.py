"""Memory that processes share: what lies in it, and that it goes with its last user."""

import os
import threading

import numpy as np
import pytest
from PIL import Image

from mgpo.images.shared_memory import share
from mgpo.images.views import View


def pictures() -> list[Image.Image]:
    pixels = np.random.default_rng(0).integers(0, 256, (2, 40, 60, 3), dtype=np.uint8)
    return [Image.fromarray(pixels[0]), Image.fromarray(pixels[1]).crop((0, 0, 30, 20))]


def test_parts_are_those_of_the_picture() -> None:
    for original, shared in zip(pictures(), share(pictures()), strict=True):
        box = (3, 5, 27, 19)
        assert shared.size == original.size
        assert shared.crop(box).tobytes() == original.crop(box).tobytes()
        view = View(box, (14, 10))
        assert view.pixels(shared).tobytes() == view.pixels(original).tobytes()
        assert shared.resize((14, 14), Image.Resampling.BICUBIC).tobytes() == original.resize((14, 14)).tobytes()


def test_memory_goes_with_the_last_picture_that_lies_in_it() -> None:
    first, second = share(pictures())
    descriptor, part = first.block.descriptor, first.crop((0, 0, 10, 10))
    del first
    os.fstat(descriptor)  # the other one lies there too
    del second
    for thread in threading.enumerate():
        if thread.name == "shared pictures":
            thread.join()
    with pytest.raises(OSError):
        os.fstat(descriptor)
    assert part.getpixel((0, 0)) == pictures()[0].getpixel((0, 0))
