"""Where questions come from. A source is a sized collection of questions, named by its class path."""

from typing import Protocol

from mgpo.errors import UserError
from mgpo.types import Question


class Source(Protocol):
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

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Question: ...


class DataError(UserError):
    """Data that can't be used; the message says what, where, and what to do."""


def split_of(source: Source) -> str:
    """The split under which a source reports: its own, or that of its questions where it does not say."""
    return getattr(source, "split", None) or (source[0].split if len(source) else "")
