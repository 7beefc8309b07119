"""Where questions come from. A source is a sized collection of questions, named by its class path."""

from abc import abstractmethod
from collections import defaultdict
from collections.abc import Sequence

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
    texts = (question.text, question.answer, *question.accepted, *(question.choices or ()))
    if not all(isinstance(text, str) for text in texts):
        raise DataError(f"the source {name}: text, choices and answers of question {index} have to be texts")
    if broken(*texts):
        raise DataError(f"the source {name}: a text of question {index} {BROKEN}")
    return question


def broken(*texts: str) -> bool:
    """Whether a text holds half of a surrogate pair, which no tokenizer takes."""
    return any(not text.isascii() and any("\ud800" <= sign <= "\udfff" for sign in text) for text in texts)


def split_of(source: Source) -> str:
    """The split under which a source reports: its own, or that of its questions where it does not say."""
    return getattr(source, "split", None) or (question_of(source, 0).split if len(source) else "")


def check_splits(key: str, sources: Sequence[Source]) -> None:
    """Raises DataError where a source would report among other curves than its own, and as `check_ids` does."""
    for split in map(split_of, sources):
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
