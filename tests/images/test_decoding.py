import io
import warnings
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from PIL import Image, features

from mgpo.images.decoding import BadImage, FilePicture, check_image, decode_image, open_image, to_rgb
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


@pytest.mark.parametrize(
    ("most", "seen"), [(200, 200), (1000, 249), (4095, 255), (4096, 63), (40_000, 155), (100_000, 255), (0, 0)]
)
def test_greys_are_scaled_by_the_bits_that_they_take(most, seen):
    """Those of a scanner with 12 bits lie in files of 16, and would else be nearly black."""
    grey = np.linspace(0, most, 64, dtype=np.int32).reshape(8, 8)
    assert to_rgb(Image.fromarray(grey)).getextrema() == ((0, seen),) * 3


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


@pytest.mark.parametrize(("kind", "options"), [("TIFF", {}), ("TIFF", {"compression": "tiff_lzw"}), ("JPEG", {})])
def test_damaged_files_are_bad_images_and_nothing_else(kind, options):
    exif = Image.Exif()
    exif[0x0112], exif[0x010E] = 6, "a scene"
    buffer = io.BytesIO()
    noise_image(24, 16).save(buffer, kind, exif=exif, **options)
    rng, refused = np.random.default_rng(0), []
    for _ in range(400):
        data = bytearray(buffer.getvalue())
        head = slice(0, 120) if kind == "JPEG" else slice(-220, None) if rng.random() < 0.5 else slice(0, 220)
        places = np.arange(len(data))[head]
        data[int(rng.choice(places))] = int(rng.integers(256))
        data[int(rng.choice(places))] = int(rng.integers(256))
        try:
            assert decode_image(bytes(data), "damaged").mode == "RGB"
        except BadImage as error:
            refused.append(str(error))
    assert 0 < len(refused) < 400
    assert all(why.startswith("damaged: ") and "\n" not in why for why in refused)


@pytest.mark.parametrize("exif", [b"II*\x00\x08", b"II*,\x08", b"II*\x00\x08\x00\x00\x00\x02\x00\x12\x01\x03\x00"])
@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
def test_damaged_exif_leaves_the_picture_as_it_is_stored(kind, exif):
    buffer = io.BytesIO()
    picture = noise_image(24, 16)
    picture.save(buffer, kind, exif=b"Exif\x00\x00" + exif)
    assert decode_image(buffer.getvalue(), "odd").size == picture.size


def test_a_picture_is_turned_whatever_else_its_exif_data_says():
    """Of such a tag Pillow can't write the data back, which nobody needs."""
    buffer = io.BytesIO()
    exif = Image.Exif()
    exif[0x0112], exif[0x0128] = 6, 2
    Image.new("RGB", (60, 40)).save(buffer, "JPEG", exif=exif)
    data = buffer.getvalue()
    at = data.index(b"\x28\x01\x03\x00") if b"\x28\x01\x03\x00" in data else data.index(b"\x01\x28\x00\x03")
    little = data[at : at + 2] == b"\x28\x01"
    kind = b"\x02\x00" if little else b"\x00\x02"  # a text in place of a number
    assert decode_image(data[: at + 2] + kind + data[at + 4 :], "odd").size == (40, 60)


def test_what_is_a_program_is_no_picture():
    with pytest.raises(BadImage, match="not an image that can be read"):
        decode_image(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 48 32\n{} loop\n%%EOF", "a.jpg")


@pytest.mark.skipif(not features.check("avif"), reason="Pillow was built without AVIF")
def test_a_moving_avif_is_refused():
    buffer, frames = io.BytesIO(), [Image.new("RGB", (32, 32), colour) for colour in ("red", "blue")]
    frames[0].save(buffer, "AVIF", save_all=True, append_images=frames[1:])
    with pytest.raises(BadImage, match="animated"):
        decode_image(buffer.getvalue(), "a.avif")


def test_decoding_in_threads_mutes_nobody():
    """What one thread sets aside for a while, another may have put back for good."""
    buffer = io.BytesIO()
    noise_image(300, 300).save(buffer, "PNG")
    before = list(warnings.filters)
    with ThreadPoolExecutor(4) as threads:
        list(threads.map(decode_image, [buffer.getvalue()] * 40, ["a.png"] * 40))
    assert warnings.filters == before
    with pytest.warns(UserWarning, match="heard"):
        warnings.warn("heard", stacklevel=1)


def test_formats_without_a_signature_look_at_no_file_that_has_one(tmp_path, monkeypatch):
    noise_image(32, 32).save(tmp_path / "a.jpg")
    for name, (_, accepts) in list(Image.OPEN.items()):
        if accepts is None:
            refuse = lambda *given, name=name: pytest.fail(f"{name} was tried")  # noqa: E731
            monkeypatch.setitem(Image.OPEN, name, (refuse, None))
    check_image(tmp_path / "a.jpg")


def test_a_file_is_looked_at_before_it_is_given_as_it_is(tmp_path):
    with pytest.raises(BadImage, match=r"none\.png: there is no such file"):
        FilePicture(str(tmp_path / "none.png")).read()
    (tmp_path / "words.png").write_text("no picture")
    with pytest.raises(BadImage, match=r"words\.png"):
        FilePicture(str(tmp_path / "words.png")).read()
    noise_image(8, 8).save(tmp_path / "a.png")
    assert FilePicture(str(tmp_path / "a.png")).read() == (tmp_path / "a.png").read_bytes()
