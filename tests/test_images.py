import io
import warnings

import numpy as np
import pytest
from PIL import Image

from mgpo.images import BadImage, check_image, open_image
from tests.conftest import noise_image


def save(image, path, **options):
    image.save(path, **options)
    return path


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(tmp_path, orientation):
    """The red corner of the picture as it should be seen is at the top left, however it is stored."""
    seen = Image.new("RGB", (60, 40), "blue")
    seen.paste((255, 0, 0), (0, 0, 20, 20))
    undo = {
        2: Image.Transpose.FLIP_LEFT_RIGHT, 3: Image.Transpose.ROTATE_180, 4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE, 6: Image.Transpose.ROTATE_90, 7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }  # fmt: skip
    stored = seen.transpose(undo[orientation]) if orientation > 1 else seen
    exif = Image.Exif()
    exif[0x0112] = orientation
    image = open_image(save(stored, tmp_path / "a.png", exif=exif))
    assert image.size == (60, 40)
    assert image.getpixel((5, 5)) == (255, 0, 0)
    assert image.getpixel((50, 30)) == (0, 0, 255)


def test_modes_become_rgb(tmp_path):
    colour = noise_image(16, 16)
    grey16 = Image.fromarray(np.linspace(0, 65535, 256).reshape(16, 16).astype(np.uint16))
    clear = colour.convert("RGBA")
    clear.putalpha(0)
    palette = colour.quantize(16)
    palette.info["transparency"] = 0
    for name, image in {
        "p.png": palette, "cmyk.jpg": colour.convert("CMYK"), "la.png": colour.convert("LA"),
        "l.png": colour.convert("L"),
        "one.png": colour.convert("1"), "g16.png": grey16, "clear.png": clear,
    }.items():  # fmt: skip
        opened = open_image(save(image, tmp_path / name))
        assert opened.mode == "RGB"
        assert opened.size == (16, 16)
    assert open_image(tmp_path / "g16.png").getextrema()[0] == (0, 255)
    assert open_image(tmp_path / "clear.png").getextrema() == ((255, 255),) * 3


def test_bad_files_give_one_sentence(tmp_path):
    (tmp_path / "empty.png").touch()
    (tmp_path / "page.jpg").write_text("<html>not an image</html>")
    buffer = io.BytesIO()
    noise_image(300, 300).save(buffer, "JPEG")
    (tmp_path / "cut.jpg").write_bytes(buffer.getvalue()[:4000])
    noise_image(8, 8).save(tmp_path / "moving.gif", save_all=True, append_images=[noise_image(8, 8, 1)])
    for name, words in {
        "none.png": "no such file", "empty.png": "is empty", "page.jpg": "not an image", "cut.jpg": "damaged",
        "moving.gif": "animated",
    }.items():  # fmt: skip
        with pytest.raises(BadImage, match=words) as caught:
            open_image(tmp_path / name)
        assert name in str(caught.value)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("size", [(20_000, 10_000), (100_000, 10_000)])
def test_huge_images_are_refused_from_their_header(tmp_path, size):
    path = save(Image.new("1", size), tmp_path / "huge.png")
    assert path.stat().st_size < 1_000_000
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(BadImage, match=r"huge\.png"):
            check_image(path)
