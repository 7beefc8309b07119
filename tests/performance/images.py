"""What a large JPEG costs until it is first seen, and until its first crop is: ours against decoding it in full.

The plain way opens the file, converts it to RGB, resizes all of it, and cuts the crop out of that. The two run in turn
in a process of their own, under the allocator as it comes: one that keeps freed memory (`mgpo.utils.allocator`) helps
the plain way more, which takes three times as much. Memory is a process's peak, less what it had before it opened the
file (Linux).
"""

import multiprocessing
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from mgpo.images.decoding import FilePicture
from mgpo.images.lazy import open_lazily
from mgpo.images.views import View
from mgpo.policy.families.qwen_pixels import PixelBudget
from tests.performance.pairs import Options, Row, faster, run_pairs, smaller

SIZE = (7680, 4320)
BUDGET = PixelBudget(256 * 28 * 28, 1280 * 28 * 28, 28)  # of the published recipe
REGION = (3000, 1900, 3800, 2500)
Pair = tuple[float, float]  # ours, theirs


def picture(path: Path, seed: int = 0) -> None:
    """Draw a JPEG with content at every scale, about as large as a camera's."""
    rng, image = np.random.default_rng(seed), Image.new("RGB", SIZE, (128, 128, 128))
    for divisor, share in ((16, 1.0), (4, 0.35), (2, 0.1)):
        coarse = rng.integers(0, 256, (SIZE[1] // divisor, SIZE[0] // divisor, 3), dtype=np.uint8)
        image = Image.blend(image, Image.fromarray(coarse).resize(SIZE, Image.Resampling.BICUBIC), share)
    image.save(path, quality=90)


def ours(path: str, crop: bool) -> None:
    original = open_lazily(FilePicture(path), BUDGET)
    view = View.full(original.size, BUDGET)
    view.pixels(original)
    if crop:
        View(REGION, BUDGET((800, 600))).pixels(original)


def theirs(path: str, crop: bool) -> None:
    image = Image.open(path).convert("RGB")
    image.resize(BUDGET(image.size), Image.Resampling.BICUBIC)
    if crop:
        image.crop(REGION).resize(BUDGET((800, 600)), Image.Resampling.BICUBIC)


def peaks(path: str, crop: bool) -> Pair:
    """Bytes of (ours, theirs)."""
    mine, plain = (_apart(_grown, way, path, crop) for way in (ours, theirs))
    return mine, plain


def difference(path: str) -> float:
    """Mean absolute difference of the two first views, in levels of 255."""
    original = open_lazily(FilePicture(path), BUDGET)
    seen = View.full(original.size, BUDGET).pixels(original)
    plain = Image.open(path).convert("RGB").resize(seen.size, Image.Resampling.BICUBIC)
    return float(np.abs(np.asarray(seen, int) - np.asarray(plain, int)).mean())


def _apart(function: Callable, *arguments: object) -> Any:
    """What a function gives in a process of its own."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(function, arguments)


def _grown(way: Callable[[str, bool], None], path: str, crop: bool) -> float:
    before = _peak()
    way(path, crop)
    return _peak() - before


def _peak() -> float:
    """Bytes; the `ru_maxrss` of a new process begins with its parent's."""
    status = Path("/proc/self/status").read_text()
    return 1024.0 * int(status.partition("VmHWM:")[2].split()[0])


def measure(options: Options) -> list[Row]:
    """Time of the first view, and of the first view and one crop; memory of the first view."""
    with tempfile.TemporaryDirectory() as folder:
        path = str(Path(folder) / "large.jpg")
        picture(Path(path))
        what, against = f"first view of a {SIZE[0]} × {SIZE[1]} JPEG", "open, convert, resize, crop in full"
        rows = [
            faster(
                name,
                against,
                target,
                _apart(run_pairs, partial(ours, path, crop), partial(theirs, path, crop), options.pairs),
            )
            for name, crop, target in ((what, False, 3), (f"{what}, and a crop", True, 1.5))
        ]
        print(f"the first views differ by {difference(path):.2f} of 255 levels")
        return [*rows, smaller(f"{what}: peak memory", against, 0.35, *map(int, peaks(path, crop=False)))]
