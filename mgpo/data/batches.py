"""Batches of questions with their originals, made ahead in workers, from any place in any epoch on."""

import atexit
import signal
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from itertools import islice
from typing import Any, NamedTuple

import torch
from torch.utils.data import DataLoader, Dataset, DistributedSampler, get_worker_info

from mgpo.data.base import Source, question_of
from mgpo.errors import UserError
from mgpo.images.decoding import BadImage
from mgpo.images.lazy import LazyImage, hand_over, open_all
from mgpo.images.views import Original, Resize
from mgpo.types import Question

REST = 0.2  # seconds in which other threads come to rest
ALL = 2**31  # batches: a place behind the last, in whatever data


class Sample(NamedTuple):
    """A question and its originals; `image` is None where one could not be decoded, and `why` says why."""

    question: Question
    image: Original | None
    why: str = ""
    others: tuple[Original, ...] = ()  # those of its further pictures


class Decoded(Dataset):
    """A source whose pictures are opened; a bad one costs its row, not the run.

    Args:
        source: The questions.
        first_view: The size of first views, which are all that is made of a large JPEG; without it all is decoded.
    """

    def __init__(self, source: Source, first_view: Resize | None = None) -> None:
        self.source, self.first_view = source, first_view

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, index: int) -> Sample | UserError:
        """As `sample`; an error is returned, since torch would pass on a worker's as a text with its traceback."""
        try:
            return self.sample(index)
        except UserError as error:
            return error

    def sample(self, index: int) -> Sample:
        """A question and its originals. Raises UserError where the source fails."""
        question = question_of(self.source, index)
        try:
            image, *others = open_all(question.pictures, self.first_view)
            return Sample(question, image, others=tuple(others))
        except BadImage as error:
            return Sample(question, None, str(error))


class Dealt(DistributedSampler):
    """Questions dealt round robin to the ranks, each of which leaves out its first `start`."""

    start = 0

    def __iter__(self) -> Iterator[int]:
        return islice(super().__iter__(), self.start, None)


class Batches(DataLoader):
    """Knows how many batches of which epoch it has handed out, and goes on behind them.

    Nothing is drawn before the first batch is wanted: only by then Lightning has said which epoch it is.

    Args:
        data: What is dealt.
        world: Ranks, each of which gets a batch in a step.
        rank: This one.
        batch_size: Questions a batch.
        shuffle: In another order in each epoch, and whole batches alone.
        seed: Of that order.
        num_workers: Processes that make batches ahead.
    """

    def __init__(
        self, data: Decoded, world: int, rank: int, batch_size: int, shuffle: bool, seed: int, num_workers: int
    ) -> None:
        self.decoded, self.dealt = data, Dealt(data, world, rank, shuffle, seed, drop_last=shuffle)
        self.known = {"questions": len(data), "a step": world * batch_size, "seed": seed}
        self.epoch = self.handed_out = 0
        self.loaded: Mapping[str, int] | None = None  # what `known` was in the run that goes on here
        super().__init__(
            data,
            batch_size=batch_size,
            sampler=self.dealt,
            num_workers=num_workers,
            collate_fn=_collate,
            drop_last=shuffle,
            prefetch_factor=2 if num_workers else None,
            worker_init_fn=_begin_worker,
        )

    def __iter__(self) -> Any:
        """Batches of the sampler's epoch; those behind the loaded place, if it lies in this epoch."""
        if self.loaded is None or self.epoch != self.dealt.epoch:
            self.epoch, self.handed_out = self.dealt.epoch, 0
        self._go_to(self.handed_out)
        self.loaded = None
        self._rest()
        batches = super().__iter__()
        with _ended(batches) if self.num_workers else nullcontext():
            for batch in batches:
                if mistakes := [sample for sample in batch if isinstance(sample, UserError)]:
                    raise mistakes[0]
                self.handed_out += 1
                yield batch

    def again(self, count: int) -> list[list[Sample]]:
        """The last batches before the loaded place; none where that is behind all."""
        if self.handed_out == ALL:
            return []
        self.dealt.set_epoch(self.epoch)
        self._go_to(self.handed_out - count)
        return [[self.decoded.sample(i) for i in rows] for rows in islice(self.batch_sampler or (), count)]

    def state_dict(self) -> dict[str, Any]:
        """The place in the epoch: its number and how many batches were handed out."""
        return {"epoch": self.epoch, "handed_out": self.handed_out, "known": self.known}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Goes on at the place of a checkpoint.

        Raises:
            UserError: If the checkpoint does not say which questions were asked, or they are others than here.
        """
        try:
            place = int(state_dict["epoch"]), int(state_dict["handed_out"]), dict(state_dict["known"])
        except (KeyError, TypeError, ValueError):
            raise UserError(
                "the checkpoint does not say which questions of its epoch were asked; begin a new run from its "
                "weights, with model.policy.init_args.start"
            ) from None
        self.epoch, self.handed_out, self.loaded = place

    def _go_to(self, batches: int) -> None:
        """Raises UserError where the place belongs to other questions or another order."""
        if batches not in (0, ALL) and self.loaded is not None and self.loaded != self.known:
            then, now = (", ".join(f"{name} {n}" for name, n in k.items()) for k in (self.loaded, self.known))
            raise UserError(
                f"the checkpoint was saved in the middle of an epoch ({then}), which can't go on with others ({now}); "
                "keep the data, its seed and ranks x data.batch_size, or begin a new run from its weights, with "
                "model.policy.init_args.start"
            )
        assert self.batch_size is not None
        self.dealt.start = batches * self.batch_size

    def _rest(self) -> None:
        """Forks workers while other threads are at rest.

        Up to Python 3.11.9 a worker hangs if, when it is forked, another thread is just about to run Python, as gloo's
        do behind a collective: it is born with their lock on the interpreter's list of threads (CPython gh-112275).
        """
        if self.num_workers and torch.distributed.is_initialized() and sys.version_info < (3, 11, 10):
            time.sleep(REST)


@contextmanager
def _ended(batches: Any) -> Iterator[None]:
    """Ends workers behind the loop and at the end of the program, which would else wait for them for ever.

    Where the collection of garbage is left to end them, it may have taken their queues before.
    """
    end, unregister = batches._shutdown_workers, atexit.unregister  # a module may be empty by the time of `finally`
    atexit.register(end)
    try:
        yield
    finally:
        unregister(end)
        end()


def _collate(samples: list[Sample | UserError]) -> list[Sample | UserError]:
    """The samples as they are; their pixels leave a worker through shared memory."""
    if get_worker_info() is not None:
        given = [sample for sample in samples if isinstance(sample, Sample)]
        originals = [original for sample in given for original in (sample.image, *sample.others)]
        hand_over([original for original in originals if isinstance(original, LazyImage)])
    return samples


def _begin_worker(worker: int) -> None:
    """One thread; and a signal to all processes of a run is for the one that trains, and needs its workers for it."""
    torch.set_num_threads(1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda number, _: signal.signal(number, signal.SIG_DFL))  # the second ends it
