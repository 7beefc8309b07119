"""What an engine is asked and what it answers: plain data, the same in process and between processes."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Protocol

from torch import Tensor

from mgpo.rollout.in_process import Sampling
from mgpo.types import Pixels, Prompt


@dataclass(frozen=True)
class Shown:
    """An image in a history, and the run of placeholders that its features replace."""

    name: str  # by which the engine's caches know it
    pixels: Pixels
    offset: int
    length: int
    features: Tensor | None = None  # (length, width), where the trainer's tower has seen it; else the engine's does

    @property
    def sent(self) -> Tensor:
        """What goes to the engine: features, or else patches."""
        return self.pixels.patches if self.features is None else self.features


@dataclass(frozen=True)
class Request:
    """A reply to be sampled behind a whole history, whose placeholders are expanded."""

    ids: tuple[int, ...]
    images: tuple[Shown, ...]
    seed: int


@dataclass(frozen=True)
class Drawn:
    """A sampled reply: its ids, their log-probs, and how much of the history was in the engine's cache."""

    ids: tuple[int, ...]
    logprobs: tuple[float, ...]
    cached: int  # tokens of the history that were not passed again


class Engine(Protocol):
    """The vLLM engine, in this process or in another."""

    broken: bool  # whether it can't be asked any more, and another has to be started

    def sample(
        self, requests: Sequence[Request], sampling: Sampling, stop_text: str | None
    ) -> Iterator[tuple[int, Drawn]]:
        """Sample a reply behind each history, and give (row, reply) as it ends; rows count from 0, as in `requests`."""
        ...

    def load(self, weights: Iterable[tuple[str, Tensor]]) -> None:
        """Wake up and take these weights, by their names in transformers; forget what was computed under others."""
        ...

    def sleep(self) -> None:
        """Give memory back until the next `load`."""
        ...

    def close(self) -> None:
        """Shut down and give everything back; it can't be used again."""
        ...


def place_images(
    history: Prompt, image_id: int, tokens: Callable[[Pixels], int], name: Callable[[Pixels], str]
) -> Iterator[Shown]:
    """Each image of a history at its run of placeholders.

    Raises:
        ValueError: If runs and images don't match one to one in number and length; nothing is sampled on a shifted
            image.
    """
    runs: list[tuple[int, int]] = []
    at = 0
    for is_image, run in groupby(history.ids, lambda i: i == image_id):
        length = len(list(run))
        if is_image:
            runs.append((at, length))
        at += length
    lengths, needed = [length for _, length in runs], [tokens(pixels) for pixels in history.images]
    if lengths != needed:
        raise ValueError(f"runs of {lengths} image placeholders, but images of {needed} features")
    for pixels, (offset, length) in zip(history.images, runs):
        yield Shown(name(pixels), pixels, offset, length)
