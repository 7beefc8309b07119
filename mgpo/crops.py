"""The pixels of what a rollout shows: decoded, cut and resized in threads, once for a whole group."""

import os
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

from PIL import Image

from mgpo.images import BadImage
from mgpo.policy.base import Policy
from mgpo.types import Message, Pixels, Trajectory
from mgpo.views import Original, View

# (original, view of a cut-out part, first view) -> what is shown instead, at the size at which the model sees it
Swap = Callable[[Original, View, View], Image.Image]
THREADS = min(8, os.cpu_count() or 1)


class Crops:
    """The pixels of a question's views, each made once for the whole group."""

    def __init__(self, policy: Policy, trajectory: Trajectory, swap: Swap | None) -> None:
        self.policy, self.trajectory, self.swap = policy, trajectory, swap
        self.known: dict[View, Pixels] = {}

    def __call__(self, view: View) -> Pixels:
        """Raises BadImage where the original can't be decoded any more."""
        if view not in self.known:
            self.known[view] = self.policy.pixels(self._shown(view))
        return self.known[view]

    def _shown(self, view: View) -> Image.Image:
        image, first = self.trajectory.image, self.trajectory.views[0]
        if self.swap is None or view == first:
            return view.pixels(image)
        return self.swap(image, view, first)


def make_ahead(shown: Iterable[tuple[Crops, Sequence[Message] | None]]) -> None:
    """Make the pixels that these messages show, the questions' side by side: Pillow works outside of Python's lock.

    An original that can't be decoded is passed over here; it is found when its crop is asked for.
    """
    views: dict[Crops, list[View]] = {}
    for crops, messages in shown:
        parts = [part for message in messages or () for part in message.parts]
        views.setdefault(crops, []).extend(p for p in parts if isinstance(p, View) and p not in crops.known)
    wanted = [(crops, asked) for crops, asked in views.items() if asked]
    with ThreadPoolExecutor(THREADS) as pool:
        list(pool.map(lambda job: _make(*job), wanted))


def _make(crops: Crops, views: Sequence[View]) -> None:
    with suppress(BadImage):
        for view in views:
            crops(view)
