"""Originals of which first only the first view is there: all pixels are decoded where a crop needs them, and once."""

import math
import threading
import weakref
from collections.abc import Sequence
from typing import Any

from PIL import Image

from mgpo.images.decoding import BadImage, Picture, first_view
from mgpo.images.shared_memory import BYTES, SharedImage, share
from mgpo.images.views import Box, Original, Region, Resize, Size, View

KEPT = 2_000_000_000  # bytes of decoded originals in a process
HANDED = 400_000_000  # bytes of originals that a worker hands over with a batch


class LazyImage:
    """A picture that stands where a PIL image may, with its first view ready.

    Whatever else is asked of it takes all its pixels. They are decoded when that happens, once for all crops of a
    group and all turns, unless a worker has handed them over, and may be forgotten again to keep to `KEPT`.

    A file that can be decoded now may be gone by then: `crop` and `resize` raise `mgpo.images.decoding.BadImage`.
    """

    def __init__(
        self, picture: Picture, size: Size, first: Original, decoded: Image.Image | None = None,
        handed: SharedImage | None = None,
    ) -> None:  # fmt: skip
        self.picture, self.size, self.first, self.handed = picture, size, first, handed
        self.decoded = decoded
        self.lock = threading.Lock()
        if decoded is not None:
            ROOM.use(self)

    def crop(self, box: Box) -> Image.Image:
        """A part, (left, top, right, bottom) in pixels of the original, cut from its full pixels. Raises BadImage."""
        return self.decoded_image().crop(box)

    def resize(
        self, size: Size, resample: int, box: Box | None = None, reducing_gap: float | None = None
    ) -> Image.Image:
        """As Pillow's `resize`, of all pixels. Raises BadImage."""
        return self.decoded_image().resize(size, resample, box, reducing_gap)

    def seen(self, region: Region, size: Size) -> Image.Image:
        """The first view, which is there, or a part of all pixels at that size. Raises BadImage."""
        if region == (0, 0, *self.size) and size == self.first.size:
            return self.first.crop((0, 0, *size))
        return View(region, size).pixels(self.decoded_image())

    def decoded_image(self) -> Original:
        """All pixels; several threads that ask at once wait for one decode."""
        if self.handed is not None:
            return self.handed
        with self.lock:
            image = self.decoded = self.decoded or self.picture.load()
        ROOM.use(self)
        return image

    def forget(self) -> None:
        """Let the decoded pixels go; whoever asks for them next has them decoded again."""
        self.decoded = None

    def __reduce__(self) -> tuple[Any, ...]:
        """Decoded pixels stay where they are: they are worth less than the time that a pipe takes for them."""
        return LazyImage, (self.picture, self.size, self.first, None, self.handed)


class Room:
    """Keeps decoded originals within `limit` bytes, the longest unused are forgotten first.

    One that is larger than that is kept alone. Originals that nobody holds any more count no longer.
    """

    def __init__(self, limit: int) -> None:
        self.limit, self.lock = limit, threading.Lock()
        self.users: list[weakref.ref[LazyImage]] = []  # the latest last

    def use(self, original: LazyImage) -> None:
        """Say that an original is decoded and in use."""
        with self.lock:
            alive = [user for ref in self.users if (user := ref()) is not None and user.decoded is not None]
            others = [user for user in alive if user is not original]
            held = BYTES * sum(math.prod(user.size) for user in [*others, original])
            while others and held > self.limit:
                oldest = others.pop(0)
                oldest.forget()
                held -= BYTES * math.prod(oldest.size)
            self.users = [weakref.ref(user) for user in [*others, original]]


ROOM = Room(KEPT)


def open_lazily(picture: Picture, full: Resize | None) -> Original:
    """A picture whose first view has the size that `full` gives; decoded in full where `full` is None.

    Damage is found here, before a rollout spends time on the question. Raises `mgpo.images.decoding.BadImage`.
    """
    if full is None:
        return _loaded(picture)
    read = getattr(picture, "read", None)  # what is drawn or in memory has no file
    shrunk = None if read is None else first_view(read(), full)
    if shrunk is not None:
        return LazyImage(picture, *shrunk)
    image = _loaded(picture)
    return LazyImage(picture, image.size, View.full(image.size, full).pixels(image), image)


def _loaded(picture: Picture) -> Image.Image:
    image = picture.load()
    if not math.prod(image.size):
        raise BadImage(f"a picture of {image.width} x {image.height} pixels shows nothing")
    return image


def open_all(pictures: Sequence[Picture], full: Resize | None) -> tuple[Original, ...]:
    """`open_lazily` for each of a question's pictures, in order. Raises `mgpo.images.decoding.BadImage`."""
    return tuple(open_lazily(picture, full) for picture in pictures)


def hand_over(originals: Sequence[LazyImage]) -> None:
    """Move pixels into memory that another process can share: first views, and decoded originals while they fit.

    An original beyond `HANDED`, or where memory is short, is decoded once more where it is cut.
    """
    decoded: list[tuple[LazyImage, Image.Image]] = []
    room = HANDED
    for original in originals:
        if original.decoded is not None and (size := BYTES * math.prod(original.size)) <= room:
            decoded.append((original, original.decoded))
            room -= size
    firsts = [(original, original.first) for original in originals if isinstance(original.first, Image.Image)]
    if not firsts:
        return
    try:
        shared = iter(share([image for _, image in [*firsts, *decoded]]))
    except OSError:
        return
    for original, _ in firsts:
        original.first = next(shared)
    for original, _ in decoded:
        original.handed = next(shared)
        original.forget()
