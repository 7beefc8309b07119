"""The LightningDataModule: batches of questions with their originals, whose first views are made ahead in a worker."""

import signal
import sys
import time
import warnings
from collections.abc import Sequence
from typing import Any, NamedTuple

import lightning as L
import torch
from torch.utils.data import Dataset, get_worker_info
from torchdata.stateful_dataloader import StatefulDataLoader
from torchdata.stateful_dataloader.sampler import StatefulDistributedSampler

from mgpo.data.sources import DataError, Source
from mgpo.images import BadImage
from mgpo.originals import Deferred, hand_over, open_original
from mgpo.types import Question
from mgpo.views import Original, Resize

REST = 0.2  # seconds in which other threads come to rest


class Sample(NamedTuple):
    """A question and its original; `image` is None where it could not be decoded, and `why` says why."""

    question: Question
    image: Original | None
    why: str = ""


class Decoded(Dataset):
    """A source whose pictures are opened; a bad one costs its row, not the run.

    Args:
        source: The questions.
        whole: The size of first views, which are all that is made of a large JPEG; without it all is decoded.
    """

    def __init__(self, source: Source, whole: Resize | None = None) -> None:
        self.source, self.whole = source, whole

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, index: int) -> Sample:
        question = self.source[index]
        try:
            return Sample(question, open_original(question.picture, self.whole))
        except BadImage as error:
            return Sample(question, None, str(error))


class GlobalSampler(StatefulDistributedSampler):
    """Deals questions round robin; how far it has come is counted over all ranks, so that any number may go on."""

    def state_dict(self) -> dict[str, int]:
        return {self._YIELDED: self.yielded * self.num_replicas}

    def load_state_dict(self, state_dict: dict[str, int]) -> None:
        super().load_state_dict({self._YIELDED: state_dict[self._YIELDED] // self.num_replicas})


class VQAData(L.LightningDataModule):
    """Questions for training and, by split, for validation and testing. No boxes anywhere.

    Args:
        train: The source of training questions.
        val: Sources for validation; each reports under its own split.
        test: Sources for `test`; those of `val` where there are none.
        batch_size: Questions a step and process; each is rolled out as a whole group.
        eval_batch_size: Questions a batch in evaluation.
        num_workers: Processes that decode images ahead of the model.
        seed: Order of the training questions.
    """

    def __init__(
        self,
        train: Source | None = None,
        val: Sequence[Source] = (),
        test: Sequence[Source] = (),
        batch_size: int = 8,
        eval_batch_size: int = 64,
        num_workers: int = 1,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.train, self.val, self.test = train, list(val), list(test)
        self.batch_size, self.eval_batch_size = batch_size, eval_batch_size
        self.num_workers, self.seed = num_workers, seed

    def setup(self, stage: str) -> None:
        for source in [self.train, *self.val, *self.test]:
            complaint = source.complaint() if source is not None and hasattr(source, "complaint") else None
            if complaint:
                warnings.warn(complaint, stacklevel=2)

    def transfer_batch_to_device(self, batch: list[Sample], device: torch.device, dataloader_idx: int) -> list[Sample]:
        """Questions and originals stay where they are; views are moved when they are encoded."""
        return batch

    def train_dataloader(self) -> StatefulDataLoader:
        if self.train is None:
            raise DataError("data.train: name a source of training questions")
        return self._loader(self.train, self.batch_size, shuffle=True)

    def val_dataloader(self) -> list[StatefulDataLoader]:
        return [self._loader(source, self.eval_batch_size, shuffle=False) for source in self.val]

    def test_dataloader(self) -> list[StatefulDataLoader]:
        return [self._loader(source, self.eval_batch_size, shuffle=False) for source in self.test or self.val]

    def _loader(self, source: Source, batch_size: int, shuffle: bool) -> StatefulDataLoader:
        world, rank = (self.trainer.world_size, self.trainer.global_rank) if self.trainer else (1, 0)
        data = Decoded(source, self._whole())
        sampler = GlobalSampler(data, world, rank, shuffle=shuffle, seed=self.seed, drop_last=shuffle)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "'set_vital' is deprecated")  # torchdata's call, not ours
            return _Loader(
                data,
                batch_size=batch_size,
                sampler=sampler,
                num_workers=self.num_workers,
                collate_fn=_collate,
                drop_last=shuffle,
                prefetch_factor=2 if self.num_workers else None,
                worker_init_fn=_begin_worker,
            )

    def _whole(self) -> Resize | None:
        """The size at which the policy first sees pictures, where there is a policy to learn it from."""
        policy = getattr(getattr(self.trainer, "lightning_module", None), "policy", None)
        sight = getattr(policy, "sight", None)
        return None if sight is None else sight.whole


class _Loader(StatefulDataLoader):
    """Forks its workers while other threads are at rest.

    Up to Python 3.11.9 a worker hangs if, when it is forked, another thread is just about to run Python, as gloo's do
    behind a collective: it is born with their lock on the interpreter's list of threads (CPython gh-112275).
    """

    def __iter__(self) -> Any:
        if self.num_workers and torch.distributed.is_initialized() and sys.version_info < (3, 11, 10):
            time.sleep(REST)
        return super().__iter__()


def _collate(samples: list[Sample]) -> list[Sample]:
    """The samples as they are; their pixels leave a worker through shared memory."""
    if get_worker_info() is not None:
        hand_over([sample.image for sample in samples if isinstance(sample.image, Deferred)])
    return samples


def _begin_worker(worker: int) -> None:
    """One thread; and a signal to all processes of a run is for the one that trains, and needs its workers for it."""
    torch.set_num_threads(1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda number, _: signal.signal(number, signal.SIG_DFL))  # the second ends it
