"""The filter through which pictures are seen, against Pillow's own."""

import numpy as np
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image

from mgpo.images.resizing import resized

sides = st.integers(1, 400)


def noise(width, height, low=0, high=256):
    return Image.fromarray(np.random.default_rng(0).integers(low, high, (height, width, 3), dtype=np.uint8))


def levels(image):
    return np.asarray(image, int)


@settings(deadline=None)
@given(sides, sides, sides, sides)
@example(2000, 1500, 56, 28)
@example(1, 1, 300, 1)
@example(13, 399, 12, 29)
def test_it_is_pillows_filter_to_two_levels(width, height, to_width, to_height):
    image = noise(width, height, 64, 192)  # so that nothing is cut off at 0 or 255
    ours, pillows = resized(image, (to_width, to_height)), image.resize((to_width, to_height), Image.Resampling.BICUBIC)
    assert ours.size == pillows.size
    off = np.abs(levels(ours) - levels(pillows))
    assert off.max() <= 2 and off.mean() <= 0.5  # each rounds between the passes, and not in the same order


def test_at_its_own_size_nothing_changes():
    image = noise(37, 300)
    assert resized(image, image.size).tobytes() == image.tobytes()


@settings(deadline=None)
@given(st.integers(0, 300), st.integers(0, 300), sides, sides)
def test_nothing_around_a_region_bleeds_into_it(left, top, width, height):
    image = noise(720, 710)
    region = (left, top, left + width, top + height)
    assert resized(image, (30, 20), region).tobytes() == resized(image.crop(region), (30, 20)).tobytes()
