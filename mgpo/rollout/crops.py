"""The pixels of what a rollout shows: decoded, cut and resized in threads, once for a whole group."""

import os
from collections.abc import Callable, Sequence
from concurrent.futures import Executor, Future
from typing import Any

from PIL import Image

from mgpo.images.views import Original, View
from mgpo.policy.base import Policy
from mgpo.types import Message, Pixels, Trajectory

# (original, view of a cut-out part, first view of that original) -> what is shown instead, at the size at which the
# model sees it
Swap = Callable[[Original, View, View], Image.Image]
THREADS = min(8, os.cpu_count() or 1)


class CropCache:
    """The pixels of a question's views, each made once for the whole group, while the policy goes on.

    Threads are enough for that: Pillow works outside of Python's lock.
    """

    def __init__(self, policy: Policy, trajectory: Trajectory, swap: Swap | None, threads: Executor) -> None:
        self.policy, self.trajectory, self.swap, self.threads = policy, trajectory, swap, threads
        self.known: dict[tuple[View, bool], Future[Pixels]] = {}

    def begin(self, messages: Sequence[Message] | None) -> None:
        """Have the pixels made that these messages show."""
        for part in (part for message in messages or () for part in message.parts):
            if isinstance(part, View) and (key := self._key(part)) not in self.known:
                self.known[key] = self.threads.submit(self._make, part)

    def __call__(self, view: View) -> Pixels:
        """Pixels that were begun. Raises BadImage where the original can't be decoded any more."""
        return self.known[self._key(view)].result()

    def _key(self, view: View) -> tuple[View, bool]:
        """A part that equals the first view is something else where something else is shown in its place."""
        return view, self.swap is not None and view is self.trajectory.whole(view)

    def _make(self, view: View) -> Pixels:
        return self.policy.pixels(picture_of(self.trajectory, view, self.swap))


def picture_of(trajectory: Trajectory, view: View, swap: Swap | None) -> Image.Image:
    """What stands for a view: its pixels, or for a part that was cut out what a swap gives. Raises BadImage."""
    image, first = trajectory.original(view), trajectory.whole(view)
    if swap is None or view is first:
        return view.pixels(image)
    return swap(image, view, first)


def swaps_of(swap: Swap | Sequence[Swap | None] | None, samples: Sequence[Any]) -> Sequence[Swap | None]:
    """The swap of each sample, where one may be given for all of them."""
    return swap if isinstance(swap, Sequence) else [swap] * len(samples)
