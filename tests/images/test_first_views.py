"""First views of large JPEGs, decoded at reduced scale: what the whole picture gives, nearly, and no less strict."""

import io
import math

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageDraw

from mgpo.images.decoding import BadImage, decode_image, first_view
from mgpo.images.views import View
from tests.conftest import noise_image


def small(size):
    """A resize rule: a tenth of each side, as wide a rule as any family's."""
    return (max(1, size[0] // 10), max(1, size[1] // 10))


def smooth(width, height):
    """Light that varies over the picture, and noise on it."""
    coarse = noise_image(width // 40 + 2, height // 40 + 2).resize((width, height), Image.Resampling.BICUBIC)
    return Image.blend(coarse, noise_image(width, height, 1), 0.2)


def jpeg(image, orientation=1, **options):
    exif, buffer = Image.Exif(), io.BytesIO()
    exif[0x0112] = orientation
    image.save(buffer, "JPEG", exif=exif, **options)
    return buffer.getvalue()


@settings(deadline=None, max_examples=60)
@given(
    st.integers(300, 900), st.integers(300, 900), st.integers(1, 8), st.sampled_from([70, 95]), st.sampled_from([0, 2]),
    st.sampled_from(["RGB", "L"]), st.booleans(), st.integers(3, 25),
)  # fmt: skip
def test_a_reduced_first_view_is_that_of_the_whole(width, height, turn, quality, chroma, mode, progressive, shrink):
    image = smooth(width, height).convert(mode)
    data = jpeg(image, turn, quality=quality, subsampling=chroma, progressive=progressive)

    def whole(size):
        return (size[0] // shrink, size[1] // shrink)

    plain = decode_image(data, "it")
    view = View.full(plain.size, whole)
    found = first_view(data, whole)
    assert (found is not None) == all(side // math.ceil(2.75 * seen) >= 2 for side, seen in zip(plain.size, view.size))
    if found is not None:
        assert found[0] == plain.size
        assert found[1].size == view.size and found[1].mode == "RGB"
        assert np.abs(np.asarray(found[1], int) - np.asarray(view.pixels(plain), int)).mean() < 1


def test_even_noise_stays_within_two_levels_on_average():
    data = jpeg(noise_image(1100, 1100), quality=95, subsampling=0)
    _, seen = first_view(data, lambda size: (200, 200))
    plain = decode_image(data, "it").resize((200, 200), Image.Resampling.BICUBIC)
    off = np.abs(np.asarray(seen, int) - np.asarray(plain, int))
    assert 0 < off.mean() < 2 < off.max() <= 18


def test_colours_that_meet_in_edges_are_off_by_more():
    """Where colours are subsampled, reducing by DCT does not mix them as the full decode does."""
    blocks = noise_image(150, 120).resize((1050, 840), Image.Resampling.NEAREST)
    letters, rng = Image.new("RGB", (800, 600), "white"), np.random.default_rng(0)
    for x, y, *colour in rng.integers(0, [800, 600, 256, 256, 256], (300, 5)).tolist():
        ImageDraw.Draw(letters).text((x, y), "ABCxyz123", fill=tuple(colour))
    for image, most in ((blocks, 18), (letters, 35)):
        size, seen = first_view(jpeg(image, quality=90, subsampling=2), lambda size: (size[0] // 6, size[1] // 6))
        plain = decode_image(jpeg(image, quality=90, subsampling=2), "it").resize(seen.size, Image.Resampling.BICUBIC)
        assert 2 < np.abs(np.asarray(seen, int) - np.asarray(plain, int)).max() <= most


def test_what_gives_a_first_view_can_be_decoded():
    """Damage that a reduced decode passes over would cost a rollout."""
    whole, rng, outcomes = jpeg(smooth(500, 400)), np.random.default_rng(0), set()
    for i in range(150):
        data = bytearray(whole)
        if i % 2:
            data = data[: int(rng.integers(len(data)))]
        else:
            for place in rng.integers(0, len(data), 8):
                data[place] = int(rng.integers(256))
        seen = first_view(bytes(data), small)
        try:
            outcomes.add((seen is not None, decode_image(bytes(data), "it").size == (seen[0] if seen else None)))
        except BadImage:
            outcomes.add((seen is not None, False))
    assert (True, False) not in outcomes and (True, True) in outcomes and (False, False) in outcomes
