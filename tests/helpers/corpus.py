"""Broken and unusual image files, made here: each with the size at which it is seen, or words of its refusal."""

import io
import struct
import zlib
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from PIL import Image, features

from tests.conftest import noise_image

SIZE = (48, 32)


class Odd(NamedTuple):
    """A file; `size` of its upright pixels, or None where it must be refused with these words."""

    name: str
    data: bytes
    size: tuple[int, int] | None
    words: str = ""


def corpus() -> list[Odd]:
    """Every file, by a name of its own."""
    return [*_modes(), *_formats(), *_turned(), *_truncated(), *_tampered(), *_bombs(), *_not_images(), *_named()]


def encode(image: Image.Image, kind: str, **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def png(width: int, height: int, depth: int, colour: int, pixels: bytes, *more: bytes) -> bytes:
    """A PNG file with any header, whatever its pixels are."""
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    body = chunk(b"IHDR", header) + b"".join(more) + chunk(b"IDAT", zlib.compress(pixels)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


def _modes() -> Iterator[Odd]:
    picture = noise_image(*SIZE)
    alpha = picture.convert("RGBA")
    alpha.putalpha(Image.linear_gradient("L").resize(SIZE))
    grey = np.random.default_rng(0).integers(0, 65536, (32, 48), dtype=np.uint16)
    unit = np.random.default_rng(0).random((32, 48), dtype=np.float32)
    yield Odd("grey.png", encode(picture.convert("L"), "PNG"), SIZE)
    yield Odd("bit.png", encode(picture.convert("1"), "PNG"), SIZE)
    yield Odd("la.png", encode(picture.convert("LA"), "PNG"), SIZE)
    yield Odd("alpha.png", encode(alpha, "PNG"), SIZE)
    yield Odd("palette.png", encode(picture.quantize(16), "PNG"), SIZE)
    yield Odd("palette-clear.png", encode(picture.quantize(16), "PNG", transparency=0), SIZE)
    yield Odd("palette-alpha.png", encode(picture.quantize(4), "PNG", transparency=bytes([0, 80, 255])), SIZE)
    yield Odd("rgb-clear.png", encode(picture, "PNG", transparency=(1, 2, 3)), SIZE)
    yield Odd("grey16.png", encode(Image.fromarray(grey), "PNG"), SIZE)
    yield Odd("rgb16.png", png(*SIZE, 16, 2, (b"\0" + bytes(range(256)) + bytes(32)) * 32), SIZE)
    yield Odd("rgba16.png", png(*SIZE, 16, 6, (b"\0" + bytes(384)) * 32), SIZE)
    yield Odd("grey2.png", png(*SIZE, 2, 0, (b"\0" + b"\x1b" * 12) * 32), SIZE)
    yield Odd("float.tif", encode(Image.fromarray(unit), "TIFF"), SIZE)
    yield Odd("float-nan.tif", encode(Image.fromarray(np.full_like(unit, np.nan)), "TIFF"), SIZE)
    yield Odd("float-inf.tif", encode(Image.fromarray(np.full_like(unit, np.inf)), "TIFF"), SIZE)
    yield Odd("int32.tif", encode(Image.fromarray(grey.astype(np.int32) - 30_000), "TIFF"), SIZE)
    yield Odd("lab.tif", encode(Image.new("LAB", SIZE), "TIFF"), SIZE)
    yield Odd("cmyk.jpg", encode(picture.convert("CMYK"), "JPEG"), SIZE)
    ycck = encode(picture.convert("CMYK"), "JPEG")
    adobe = ycck.find(b"Adobe")
    yield Odd("ycck.jpg", ycck[: adobe + 11] + b"\2" + ycck[adobe + 12 :], SIZE)
    yield Odd("pixel.png", encode(Image.new("RGB", (1, 1)), "PNG"), (1, 1))
    yield Odd("wide.png", encode(noise_image(1000, 1), "PNG"), (1000, 1))
    yield Odd("tall.jpg", encode(noise_image(2, 2000), "JPEG"), (2, 2000))


def _formats() -> Iterator[Odd]:
    picture, other = noise_image(*SIZE), noise_image(*SIZE, 1)
    for kind in ("BMP", "TGA", "PPM", "GIF", "WEBP", "ICO", "PCX", "SGI", "DDS", "JPEG2000", "AVIF"):
        codec = {"JPEG2000": "jpg_2000", "AVIF": "avif"}.get(kind)
        if codec is None or features.check(codec):
            options = {"sizes": [SIZE]} if kind == "ICO" else {}
            yield Odd(f"plain.{kind.lower()}", encode(picture, kind, **options), SIZE)
    yield Odd("progressive.jpg", encode(picture, "JPEG", progressive=True), SIZE)
    yield Odd("restart.jpg", encode(picture, "JPEG", restart_marker_blocks=1), SIZE)
    yield Odd("interlaced.gif", encode(picture.quantize(8), "GIF", interlace=1), SIZE)
    arithmetic = encode(picture, "JPEG")
    place = arithmetic.find(b"\xff\xc0")
    yield Odd("arithmetic.jpg", arithmetic[: place + 1] + b"\xc9" + arithmetic[place + 2 :], SIZE)
    yield Odd("lossless.jpg", arithmetic[: place + 1] + b"\xc3" + arithmetic[place + 2 :], None, "damaged|read")
    yield Odd("pages.tif", encode(picture, "TIFF", save_all=True, append_images=[other]), SIZE)
    yield Odd("lzw.tif", encode(picture, "TIFF", compression="tiff_lzw"), SIZE)
    for kind in ("GIF", "PNG", "WEBP"):
        moving = encode(picture, kind, save_all=True, append_images=[other], duration=50)
        yield Odd(f"moving.{kind.lower()}", moving, None, "animated")


def _turned() -> Iterator[Odd]:
    picture = noise_image(*SIZE)
    for orientation in range(10):  # 0 and 9 mean nothing
        exif = Image.Exif()
        exif[0x0112] = orientation
        size = (32, 48) if 5 <= orientation <= 8 else SIZE
        yield Odd(f"turned-{orientation}.jpg", encode(picture, "JPEG", exif=exif), size)
    for number, block in enumerate(
        (b"", b"II", b"MM\x00\x2a\xff\xff\xff\xff", b"II*\x00\x08\x00\x00\x00\xff\xff", b"\0" * 60)
    ):
        yield Odd(f"exif-{number}.jpg", encode(picture, "JPEG", exif=b"Exif\x00\x00" + block), SIZE)
    yield Odd("profile.jpg", encode(picture, "JPEG", icc_profile=b"no profile" * 20), SIZE)
    yield Odd("profile.png", encode(picture, "PNG", icc_profile=b"no profile"), SIZE)


def _truncated() -> Iterator[Odd]:
    picture = noise_image(*SIZE)
    for kind in ("PNG", "JPEG", "GIF", "TIFF", "WEBP", "BMP"):
        whole = encode(picture, kind)
        for share in (0.01, 0.3, 0.9):
            yield Odd(f"cut-{share}.{kind.lower()}", whole[: int(len(whole) * share)], None)


def _tampered() -> Iterator[Odd]:
    picture = noise_image(*SIZE)
    whole = encode(picture, "PNG")
    place = whole.find(b"IDAT")
    yield Odd("trailing.png", whole + b"garbage" * 1000, SIZE)
    yield Odd("trailing.jpg", encode(picture, "JPEG") + b"<?php garbage" * 1000, SIZE)
    yield Odd("header-crc.png", whole[:29] + b"\0\0\0\0" + whole[33:], None, "read|broken|damaged")
    yield Odd("pixels.png", whole[: place + 40] + bytes(40) + whole[place + 80 :], None, "damaged")
    for width, height in ((0, 32), (48, 0), (0, 0)):
        yield Odd(f"zero-{width}-{height}.png", png(width, height, 8, 2, b""), None)
    yield Odd("few-pixels.png", png(*SIZE, 8, 2, bytes(100)), None, "damaged")
    yield Odd("depth.png", png(*SIZE, 5, 2, bytes(100)), None)
    yield Odd("other-name.jpg", whole, SIZE)


def _bombs() -> Iterator[Odd]:
    text = zlib.compress(bytes(100_000_000), 9)
    note = chunk(b"zTXt", b"note\0\0" + text)
    yield Odd("declared.png", png(60_000, 60_000, 8, 2, b""), None, "pixels are more|exceeds limit")
    bitmap = struct.pack("<IHHIIiiHHIIiiII", 54, 0, 0, 54, 40, 50_000, 50_000, 1, 24, 0, 0, 0, 0, 0, 0)
    yield Odd("declared.bmp", b"BM" + bitmap, None)
    yield Odd("declared.gif", b"GIF89a" + struct.pack("<HH", 65_535, 65_535) + bytes(40), None)
    yield Odd("text.png", png(*SIZE, 8, 2, (b"\0" + bytes(144)) * 32, note), None, "text")
    yield Odd("profile-bomb.png", png(*SIZE, 8, 2, bytes(145 * 32), chunk(b"iCCP", b"a\0\0" + text)), None, "too large")


def _not_images() -> Iterator[Odd]:
    yield Odd("empty.png", b"", None, "is empty")
    yield Odd("page.jpg", b"<html><body>Please log in</body></html>", None, "not an image")
    yield Odd("drawing.jpg", b'<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"/>', None, "not an image")
    yield Odd("script.png", b"#!/bin/sh\ntouch /tmp/here\n", None, "not an image")
    yield Odd("pickle.jpg", b"cos\nsystem\n(S'true'\ntR.", None, "not an image")
    yield Odd("zeros.png", bytes(10_000), None, "not an image")
    yield Odd("postscript.eps", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 48 32\n(x) run\n%%EOF\n", None)
    yield Odd("document.pdf", b"%PDF-1.4\n1 0 obj\n<<>>\nendobj\n%%EOF\n", None, "not an image")


def _named() -> Iterator[Odd]:
    data = encode(noise_image(*SIZE), "PNG")
    for name in (
        "with space.png",
        "quote'\".png",
        "новый.png",
        "-rf.png",
        "$(true).png",
        "%s{0}.png",
        "a\nb.png",
        ".png",
    ):
        yield Odd(name, data, SIZE)
