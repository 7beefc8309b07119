"""Opening images: upright RGB pixels, or one sentence that says what is wrong."""

import io
import math
import struct
import warnings
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Protocol

import numpy as np
from PIL import ExifTags, Image, UnidentifiedImageError

from mgpo.errors import UserError, first_line
from mgpo.images.resizing import filtered, pixels_of
from mgpo.images.views import Resize, Size

BITS = (8, 10, 12, 14, 16)  # of cameras and scanners, whose greys are stored with 16 or more
LARGEST_IMAGE = 180_000_000  # pixels; 180 megapixels are 540 MB as RGB
LARGEST_FILE = 500_000_000  # bytes
# A JPEG is decoded at no less than this times its first view. In noise a value is off by about 2 of 255 levels on
# average and by 14 at most, by 18 where colours are subsampled and meet in hard edges, by 35 in fine coloured letters.
SMALLEST_SCALE = 2.75
Image.init()
PROGRAMS = ("EPS", "WMF")  # for Ghostscript and for Windows; what else Pillow knows is read
TURNS = {  # by EXIF orientation
    2: Image.Transpose.FLIP_LEFT_RIGHT, 3: Image.Transpose.ROTATE_180, 4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE, 6: Image.Transpose.ROTATE_270, 7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}  # fmt: skip
# What Pillow raises for EXIF data that it can not read.
DAMAGED_EXIF = (struct.error, ArithmeticError, LookupError, OSError, SyntaxError, TypeError, ValueError)

# Once for all threads: what is set aside for a while in one of them may stay so, and for all warnings there are. The
# size is checked here, and odd metadata is no reason to stop.
warnings.filterwarnings("ignore", module=r"PIL\.")
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)


class BadImage(UserError):
    """An image that can't be used; the message names the file and says why."""


class Picture(Protocol):
    """A reference to an image; cheap to copy and to send to a worker."""

    def load(self) -> Image.Image:
        """The upright RGB original. Raises `BadImage` when there is none to be had."""
        ...


@dataclass(frozen=True)
class FilePicture:
    """An image in a file, which is read whenever it is loaded."""

    path: str

    def load(self) -> Image.Image:
        """The file as `open_image` decodes it. Raises BadImage."""
        return open_image(Path(self.path))

    def read(self) -> bytes:
        """The file as it is stored. Raises BadImage."""
        path = Path(self.path)
        check_image(path)
        return path.read_bytes()


def check_image(path: Path) -> None:
    """Look at a file's header only. Raises BadImage for what can be known without decoding."""
    if not is_file(path):
        raise BadImage(f"{path}: there is no such file")
    _check_bytes(str(path), path.stat().st_size)
    _check_header(str(path), path)


def is_file(path: Path) -> bool:
    """Whether there is a file of that name; no name is too long or too odd to ask."""
    try:
        return path.is_file()
    except (OSError, ValueError):
        return False


def check_data(data: bytes, name: str) -> None:
    """`check_image` for the bytes of a file that is called `name` in the message."""
    _check_bytes(name, len(data))
    _check_header(name, io.BytesIO(data))


def open_image(path: Path) -> Image.Image:
    """Decode a file: EXIF orientation applied, 8-bit RGB, transparency on white. Raises BadImage."""
    check_image(path)
    return _decode(str(path), path)


def decode_image(data: bytes, name: str) -> Image.Image:
    """Decode the bytes of an image file as `open_image` does; `name` stands in the message. Raises BadImage."""
    check_data(data, name)
    return _decode(name, io.BytesIO(data))


def size_of(picture: Picture) -> Size:
    """The size of the upright original: of an image file its header tells it, without decoding. Raises BadImage."""
    if isinstance(picture, FilePicture):
        check_image(Path(picture.path))
        name, file = picture.path, Path(picture.path)
    elif (read := getattr(picture, "read", None)) is not None:
        data = read()
        name, file = str(getattr(picture, "name", "the image")), io.BytesIO(data)
        check_data(data, name)
    else:  # drawn, or in memory
        return getattr(picture, "size", None) or picture.load().size
    try:
        with Image.open(file, formats=_formats()) as image:
            if image.format == "TIFF":  # keeps its orientation elsewhere, and Pillow turns it where it decodes
                image.load()
                return _upright(image).size
            return (image.height, image.width) if _is_turned(image) else image.size
    except MemoryError:
        raise
    except Exception as error:  # as in `_decode`
        raise BadImage(f"{name}: the image is damaged ({first_line(error)})") from None


def first_view(data: bytes, full: Resize) -> tuple[Size, Image.Image] | None:
    """The size of a large upright JPEG and the first view of it, decoded at 1/2, 1/4 or 1/8 of its size (DCT scaling).

    None where that does not apply: other formats and modes, pictures that are hardly larger than their view, damaged
    ones. All of the entropy-coded data is read at any scale, so a file that gives a first view here can be decoded.
    """
    try:
        with Image.open(io.BytesIO(data), formats=("JPEG",)) as image:
            if image.mode not in ("L", "RGB") or image.width * image.height > LARGEST_IMAGE:
                return None
            return _shrunk(image, full)
    except MemoryError:
        raise
    except Exception:  # whatever it is, decoding in full says it
        return None


def _shrunk(image: Image.Image, full: Resize) -> tuple[Size, Image.Image] | None:
    stored, turned = image.size, _is_turned(image)
    size = (stored[1], stored[0]) if turned else stored
    seen = full(size)
    wanted = (seen[1], seen[0]) if turned else seen
    drafted = image.draft(None, (math.ceil(SMALLEST_SCALE * wanted[0]), math.ceil(SMALLEST_SCALE * wanted[1])))
    if drafted is None or image.size == stored:
        return None
    _, box = drafted  # where a side is no multiple of the scale, the last pixels lie half outside
    pixels_HWC = pixels_of(image, (0, 0, *image.size))
    image.close()  # its pixels make room for the filter's
    small = filtered(pixels_HWC, wanted, (box[2], box[3]))
    small.info = image.info
    return size, _upright(small)


def _check_bytes(name: str, size: int) -> None:
    if size == 0:
        raise BadImage(f"{name}: the file is empty")
    if size > LARGEST_FILE:
        raise BadImage(f"{name}: the file has {size:,} bytes; at most {LARGEST_FILE:,} are read")


def _check_header(name: str, file: Path | io.BytesIO) -> None:
    try:
        with Image.open(file, formats=_formats()) as image:
            _check_size(name, image)
    except (BadImage, MemoryError):
        raise
    except UnidentifiedImageError:
        raise BadImage(f"{name}: this is not an image that can be read") from None
    except Exception as error:  # the decoders raise many kinds for damaged headers
        raise BadImage(f"{name}: {first_line(error)}") from None


def _decode(name: str, file: Path | io.BytesIO) -> Image.Image:
    try:
        with Image.open(file, formats=_formats()) as image:
            image.load()
            upright = _upright(image)
            plain = upright.mode == "RGB" and not upright.has_transparency_data
            return upright if plain else to_rgb(upright)  # a copy of a large image is dear
    except MemoryError:  # the image may be sound
        raise
    except Exception as error:  # the decoders raise many kinds for damaged files: struct.error, TypeError, …
        raise BadImage(f"{name}: the image is damaged ({first_line(error)})") from None


def _formats() -> list[str]:
    return _in_order(tuple(Image.ID))


@lru_cache(1)
def _in_order(names: tuple[str, ...]) -> list[str]:
    """Those with a signature first: the others take a closer look at every file, and might take what is another's."""
    return sorted((name for name in names if name not in PROGRAMS), key=lambda name: Image.OPEN[name][1] is None)


def _is_turned(image: Image.Image) -> bool:
    """Whether an image that lies will stand once it is upright; nothing is decoded."""
    lying = Image.new("1", (2, 1))
    lying.info = image.info  # with the EXIF data, so that it is turned as the image will be
    return _upright(lying).size == (1, 2)


def _upright(image: Image.Image) -> Image.Image:
    """The image turned as its EXIF data has it; as it is stored where that can't be read, as viewers show it too."""
    try:
        turn = TURNS.get(image.getexif().get(ExifTags.Base.Orientation, 1))
    except DAMAGED_EXIF:
        return image
    return image if turn is None else image.transpose(turn)


def to_rgb(image: Image.Image) -> Image.Image:
    """Any mode to RGB: greys of 10 to 16 bits are scaled by the bits that their largest value takes, of more bits or of
    floats by that value; transparency is laid on white."""
    if image.mode.startswith("I") or image.mode == "F":
        grey = np.nan_to_num(np.asarray(image, dtype=np.float32))
        most = max(1.0, float(grey.max()))
        top = most if image.mode == "F" else next((2.0**bits - 1 for bits in BITS if most < 2**bits), most)
        return Image.fromarray(np.clip(grey * (255.0 / top), 0, 255).astype(np.uint8)).convert("RGB")
    if image.has_transparency_data:
        rgba = image.convert("RGBA")
        white = Image.new("RGBA", rgba.size, "white")
        return Image.alpha_composite(white, rgba).convert("RGB")
    return image.convert("RGB")


def _check_size(name: str, image: Image.Image) -> None:
    if image.width * image.height > LARGEST_IMAGE:
        pixels = f"{image.width} x {image.height}"
        raise BadImage(f"{name}: {pixels} pixels are more than the {LARGEST_IMAGE:,} that are decoded; shrink it")
    if getattr(image, "n_frames", 1) > 1 and image.format in {"GIF", "PNG", "WEBP", "AVIF"}:
        raise BadImage(f"{name}: the image is animated; save the frame that is meant as a file of its own")
