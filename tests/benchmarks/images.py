"""A JPEG of 33 megapixels until it is first seen, and until its first crop is: ours against decoding it in full.

The plain way opens the file, converts it to RGB, resizes all of it, and cuts the crop out of that. Both run in a fresh
process, under the allocator as it comes: where freed memory is kept (`mgpo.allocator`), the plain way, which maps three
times as much, gains more by that. Memory is a process's peak, less what it had before it opened the file (Linux).
"""

import multiprocessing
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from mgpo.images import FilePicture
from mgpo.originals import open_original
from mgpo.policy.pixels import PixelBudget
from mgpo.views import View
from tests.benchmarks.pairs import Options, Pairs, Row, faster, run_pairs, smaller, table

SIZE = (7680, 4320)
BUDGET = PixelBudget(256 * 28 * 28, 1280 * 28 * 28, 28)  # of the published recipe
REGION = (3000, 1900, 3800, 2500)
AGAINST = "open, convert, resize in full"


def measure(options: Options) -> list[Row]:
    """Seconds and memory of the first view, and seconds of it with one crop."""
    with tempfile.TemporaryDirectory() as folder:
        path = str(Path(folder) / "large.jpg")
        picture(Path(path))
        what = f"JPEG of {SIZE[0]} x {SIZE[1]}, first view"
        return [
            faster(what, AGAINST, 3.0, pairs(path, False, options.pairs)),
            smaller(f"{what}: peak memory", AGAINST, 0.35, *peaks(path, False)),
            faster(f"{what} and a crop", AGAINST, 1.5, pairs(path, True, options.pairs)),
        ]


def picture(path: Path, seed: int = 0) -> None:
    """Draw a JPEG with content at every scale, about as large as a camera's."""
    rng, image = np.random.default_rng(seed), Image.new("RGB", SIZE, (128, 128, 128))
    for divisor, share in ((16, 1.0), (4, 0.35), (2, 0.1)):
        coarse = rng.integers(0, 256, (SIZE[1] // divisor, SIZE[0] // divisor, 3), dtype=np.uint8)
        image = Image.blend(image, Image.fromarray(coarse).resize(SIZE, Image.Resampling.BICUBIC), share)
    image.save(path, quality=90)


def ours(path: str, crop: bool) -> None:
    original = open_original(FilePicture(path), BUDGET)
    view = View.whole(original.size, BUDGET)
    view.pixels(original)
    if crop:
        View(REGION, BUDGET((800, 600))).pixels(original)


def theirs(path: str, crop: bool) -> None:
    image = Image.open(path).convert("RGB")
    image.resize(BUDGET(image.size), Image.Resampling.BICUBIC)
    if crop:
        image.crop(REGION).resize(BUDGET((800, 600)), Image.Resampling.BICUBIC)


def pairs(path: str, crop: bool, count: int = 7) -> Pairs:
    """Seconds of ours and theirs, by turns."""
    return _apart(run_pairs, partial(ours, path, crop), partial(theirs, path, crop), count)


def peaks(path: str, crop: bool) -> tuple[int, int]:
    """Bytes of ours and theirs."""
    mine, plain = (_apart(_grown, way, path, crop) for way in (ours, theirs))
    return mine, plain


def _apart(function: Callable, *arguments: object) -> Any:
    """What a function gives in a process of its own."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(function, arguments)


def _grown(way: Callable[[str, bool], None], path: str, crop: bool) -> int:
    before = _peak()
    way(path, crop)
    return _peak() - before


def _peak() -> int:
    """Bytes; the `ru_maxrss` of a new process begins with its parent's."""
    status = Path("/proc/self/status").read_text()
    return 1024 * int(status.partition("VmHWM:")[2].split()[0])


if __name__ == "__main__":
    print(table(measure(Options())))
