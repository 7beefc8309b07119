"""What a vision tower saw: of every image once in a pass, and of a tower that is not trained once and for all."""

import copy
from collections.abc import Callable, Iterator, Sequence
from weakref import WeakKeyDictionary

import torch
from torch import Tensor
from torch.distributed import get_world_size

from mgpo.types import Pixels
from mgpo.utils.allocator import moved
from mgpo.utils.collectives import share_objects

# Values of the pictures that go through a tower in one call: more take memory, and no less time; beside an engine that
# is awake memory is short.
TOGETHER, BESIDE = 2**26, 2**24
Tower = Callable[[Sequence[Pixels]], Sequence[Tensor]]  # of each image its features (image tokens, width)


class Features:
    """Features of images, kept on the host as long as their pixels are, for the update, the reference and the scoring.

    Args:
        frozen: Nothing that makes features is trained, so they may be kept.
    """

    def __init__(self, frozen: bool) -> None:
        self.frozen = frozen
        self.kept: WeakKeyDictionary[Pixels, Tensor] = WeakKeyDictionary()

    def __deepcopy__(self, memo: dict) -> "Features":
        return copy.copy(self)  # a copy of a policy has the same frozen tower, so it has seen the same

    def of(self, images: Sequence[Pixels], tower: Tower, device: torch.device, exchanged: bool = False) -> Tensor:
        """The features of images in order, (image tokens, width); each distinct image is seen once.

        Args:
            images: What the tower takes; the same object is the same image.
            tower: Gives the features (image tokens, width) of each of its images.
            device: Where features that are known already are moved.
            exchanged: In every call ranks gather the tower's weights from each other, so all of them call it once, also
                those that know what they need, if any does not.
        """
        distinct = dict.fromkeys(images)
        found = {image: moved(self.kept[image], device) for image in distinct if image in self.kept}
        new = [image for image in distinct if image not in found]
        if exchanged and self.frozen and any(share_objects(bool(new), get_world_size())) and not new:
            tower(images[:1])
        for part in [new] if exchanged and new else portions(new, TOGETHER):
            made = dict(zip(part, tower(part)))
            found |= made
            if self.frozen:
                self.kept.update({image: rows.cpu() for image, rows in made.items()})
        return torch.cat([found[image] for image in images])


def portions(images: Sequence[Pixels], values: int) -> Iterator[list[Pixels]]:
    """Images in order, as many at a time as have at most so many values, or one that has more."""
    part: list[Pixels] = []
    count = 0
    for image in images:
        count += image.patches.numel()
        if part and count > values:
            yield part
            part, count = [], image.patches.numel()
        part.append(image)
    if part:
        yield part
