"""Finding images by their fingerprints, without comparing each with each."""

from collections import defaultdict
from collections.abc import Iterator
from typing import Literal

import numpy as np

from mgpo.leaks.fingerprint import Fingerprint

BITS = 64
Kind = Literal["same file", "same pixels", "near"]


class Index:
    """Fingerprints by name. Memory grows with the images put in, not with those that are looked up.

    Two hashes that differ in at most `distance` of 64 bits agree in one of `distance` + 1 bands of bits at
    least (pigeonhole), so a look-up goes through the few images that share a band. Those that are near are
    compared once more by their thumbnails, which tells plain or repetitive pictures apart.

    Args:
        distance: The largest Hamming distance of hashes that counts as near.
        tolerance: The largest mean difference of thumbnails, in grey levels of 255.
    """

    def __init__(self, distance: int = 4, tolerance: float = 10.0) -> None:
        self.distance, self.tolerance = distance, tolerance
        self.entries: list[tuple[str, Fingerprint]] = []
        self.files: dict[str, list[int]] = defaultdict(list)
        self.pixels: dict[str, list[int]] = defaultdict(list)
        self.bands: dict[tuple[int, int], list[int]] = defaultdict(list)

    def add(self, name: str, print_: Fingerprint) -> None:
        """Put an image in; the names of identical images share one fingerprint."""
        number = len(self.entries)
        known = self.pixels[print_.pixels]
        self.entries.append((name, self.entries[known[0]][1] if known else print_))
        if not known:
            for key in self._keys(print_.looks):
                self.bands[key].append(number)
        known.append(number)
        if print_.file is not None:
            self.files[print_.file].append(number)

    def of_file(self, file: str | None) -> list[str]:
        """The names of the images with that very file."""
        return [self.entries[number][0] for number in self.files.get(file or "", ())]

    def find(self, print_: Fingerprint) -> Iterator[tuple[str, Kind, int]]:
        """Name, kind and Hamming distance of each image that is the same or near."""
        same = self.files.get(print_.file or "", ())
        for number in self.pixels.get(print_.pixels, ()):
            yield self.entries[number][0], "same file" if number in same else "same pixels", 0
        for number in sorted({n for key in self._keys(print_.looks) for n in self.bands.get(key, ())}):
            other = self.entries[number][1]
            distance = (other.looks ^ print_.looks).bit_count()
            if other.pixels != print_.pixels and distance <= self.distance and self._alike(other, print_):
                for name in self.pixels[other.pixels]:
                    yield self.entries[name][0], "near", distance

    def _alike(self, a: Fingerprint, b: Fingerprint) -> bool:
        difference = a.thumbnail.astype(np.int16) - b.thumbnail
        return float(np.abs(difference).mean()) <= self.tolerance

    def _keys(self, looks: int) -> Iterator[tuple[int, int]]:
        edges = [BITS * i // (self.distance + 1) for i in range(self.distance + 2)]
        for band, (low, high) in enumerate(zip(edges, edges[1:])):
            yield band, looks >> low & (1 << high - low) - 1
