"""Finding images by their fingerprints, without comparing each with each."""

from collections import defaultdict
from collections.abc import Iterator
from itertools import pairwise
from typing import Literal, get_args

import numpy as np

from mgpo.tools.leaks.fingerprint import Fingerprint

BITS = 64
Name = tuple[str, str]  # split and id of a question
Kind = Literal["same file", "same pixels", "near"]
KINDS: tuple[Kind, ...] = get_args(Kind)


class Index:
    """Fingerprints by name. Memory grows with the images put in, not with those that are looked up.

    Two hashes that differ in at most `distance` of 64 bits agree in at least one of `distance` + 1 bands of
    bits (pigeonhole), so a look-up goes through the few images that share a band. Those that are near are
    compared once more by their thumbnails, which tells plain or repetitive pictures apart.

    Args:
        distance: The largest Hamming distance of hashes that counts as near.
        tolerance: The largest mean difference of thumbnails, as a share of their standard deviation.
    """

    def __init__(self, distance: int, tolerance: float) -> None:
        self.distance, self.tolerance = distance, tolerance
        self.images: list[Fingerprint] = []  # each once
        self.names: list[list[tuple[Name, str | None]]] = []  # of each: who has it, in which file
        self.pixels: dict[str, int] = {}
        self.bands: dict[tuple[int, int], list[int]] = defaultdict(list)

    def add(self, name: Name, print_: Fingerprint) -> None:
        """Add an image under a name; one with the same pixels is kept once, with all its names."""
        number = self.pixels.setdefault(print_.pixels, len(self.images))
        if number == len(self.images):
            self.images.append(print_)
            self.names.append([])
            for key in self._keys(print_.looks):
                self.bands[key].append(number)
        self.names[number].append((name, print_.file))

    def find(self, print_: Fingerprint) -> Iterator[tuple[Name, Kind, int]]:
        """Name, kind and Hamming distance of each image that is the same or near."""
        same = self.pixels.get(print_.pixels)
        if same is not None:
            for name, file in self.names[same]:
                yield name, "same file" if file is not None and file == print_.file else "same pixels", 0
        for number in sorted({n for key in self._keys(print_.looks) for n in self.bands.get(key, ())} - {same}):
            other = self.images[number]
            distance = (other.looks ^ print_.looks).bit_count()
            if distance <= self.distance and self._alike(other.thumbnail, print_.thumbnail):
                for name, _ in self.names[number]:
                    yield name, "near", distance

    def _alike(self, a: np.ndarray, b: np.ndarray) -> bool:
        difference = np.abs(a.astype(np.int16) - b).mean()
        return bool(difference <= max(1.0, self.tolerance * a.std()))  # a plain image may be off by a grey level

    def _keys(self, looks: int) -> Iterator[tuple[int, int]]:
        edges = (BITS * i // (self.distance + 1) for i in range(self.distance + 2))
        for band, (low, high) in enumerate(pairwise(edges)):
            yield band, looks >> low & (1 << high - low) - 1
