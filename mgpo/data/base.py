"""Where questions come from. A source is a sized collection of questions, named by its class path."""

from abc import abstractmethod
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace

from PIL import Image

from mgpo.answers import LETTERS
from mgpo.errors import UserError
from mgpo.types import Question
from mgpo.utils.interface import Interface
from mgpo.utils.own_code import blaming

BROKEN = "holds half of a surrogate pair, which is no character"
CURVES = ("train", "speed", "memory", "warning", "audit")  # under whose names a run logs its own


class Source(Interface):
    """A sized, indexable collection of questions; an index always gives the same question.

    Where its class has a `score`, from records to `mgpo.metrics.Score`, the table of benchmarks takes that for its
    accuracy; `title` names its column, and `published` the figures in it. `mgpo.data.benchmarks.Benchmark` reads rows.

    Example:
        A folder of clocks whose names say the time. In my_sources.py::

            from pathlib import Path

            from mgpo.images import FilePicture
            from mgpo.types import Question


            class Clocks:
                def __init__(self, folder: str) -> None:
                    self.paths = sorted(Path(folder).glob("*.png"))

                def __len__(self) -> int:
                    return len(self.paths)

                def __getitem__(self, index: int) -> Question:
                    path = self.paths[index]
                    picture = FilePicture(str(path))
                    return Question(path.stem, picture, "What time is it?", path.stem, split="clocks")

        and on the command line ``--data.train my_sources.Clocks --data.train.folder clocks``.
    """

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def __getitem__(self, index: int) -> Question: ...


class DataError(UserError):
    """Data that can't be used; the message says what, where, and what to do."""


def question_of(source: Source, index: int) -> Question:
    """A question of a source. Raises UserError where the source fails, or gives something else."""
    name = type(source).__name__
    with blaming(f"the source {name}, asked for question {index},"):
        question = source[index]
    if not isinstance(question, Question):
        raise DataError(f"the source {name} gives a {type(question).__name__} as question {index}, not a Question")
    return _checked(question, f"the source {name}", f"question {index}")


def _checked(question: Question, source: str, which: str) -> Question:
    """A question whose parts can be used, with tuples for lists. Raises DataError."""
    parts = {name: getattr(question, name) or () for name in ("choices", "accepted", "others")}
    for name, value in parts.items():
        if not isinstance(value, list | tuple) and not (name == "accepted" and isinstance(value, set)):
            raise DataError(f"{source}: {name} of {which} has to be a tuple, not a {type(value).__name__}")
    if any(getattr(question, name) != value or not isinstance(value, tuple) for name, value in parts.items()):
        question = replace(question, **{name: tuple(value) for name, value in parts.items()})
    texts = (question.text, question.answer, *question.accepted, *question.choices)
    if not all(isinstance(text, str) for text in texts):
        raise DataError(f"{source}: text, choices and answers of {which} have to be texts")
    if broken(*texts):
        raise DataError(f"{source}: a text of {which} {BROKEN}")
    for picture in question.pictures:
        if isinstance(picture, Image.Image) or not callable(getattr(picture, "load", None)):
            kind = "PIL image" if isinstance(picture, Image.Image) else type(picture).__name__
            instead = "mgpo.images.FilePicture(path), or an object whose load() gives the image"
            raise DataError(f"{source}: a picture of {which} is a {kind}; give {instead}")
    return _lettered(question, source, which)


def _lettered(question: Question, source: str, which: str) -> Question:
    """A question whose answer, if it is known and there are choices, is the letter of one, or of several for a reward
    of one's own; of one that is given by its text, that letter. Raises DataError for any other."""
    answer, letters = question.answer, LETTERS[: len(question.choices)]
    if not question.choices or set(answer) <= set(letters):
        return question
    meant = [letter for letter, text in zip(letters, question.choices) if text == answer]
    if len(meant) != 1:
        raise DataError(
            f"{source}: the answer of {which} is {answer[:60]!r}; where there are choices it is the letter of one"
        )
    return replace(question, answer=meant[0])


def broken(*texts: str) -> bool:
    """Whether a text holds half of a surrogate pair, which no tokenizer takes."""
    return any(not text.isascii() and any("\ud800" <= sign <= "\udfff" for sign in text) for text in texts)


def split_of(source: Source) -> str:
    """The split under which a source reports: its own, or that of its questions where it does not say."""
    return getattr(source, "split", None) or (question_of(source, 0).split if len(source) else "")


def check_splits(key: str, sources: Sequence[Source]) -> None:
    """Raises DataError where a source would report among other curves than its own, and as `check_ids` does."""
    for source in sources:
        if not len(source):
            raise DataError(f"{key}: the source {type(source).__name__} has no questions; leave it out")
        if not (split := split_of(source)):
            raise DataError(
                f"{key}: the source {type(source).__name__} names no split, under which results are reported; give its "
                "questions one, such as split='val'"
            )
        if split in CURVES:
            raise DataError(f"{key}: a split can't be called {split!r}, as other curves are; call it val, for instance")
    check_ids(key, sources)


def check_ids(key: str, sources: Sequence[Source]) -> None:
    """Raises DataError where two sources report under one split and share an id: one question would hide the other.

    Ids are looked at only where a split has several sources: some can't tell them without reading their pictures.
    """
    by_split: dict[str, list[Source]] = defaultdict(list)
    for source in sources:
        by_split[split_of(source)].append(source)
    for split, sharing in by_split.items():
        known: set[str] = set()
        for source in sharing if len(sharing) > 1 else ():
            own = {question_of(source, i).id for i in range(len(source))}
            if both := known & own:
                raise DataError(
                    f"{key}: two sources report under the split {split!r}, and both have a question {min(both)!r}; "
                    "give one of them another split"
                )
            known |= own
