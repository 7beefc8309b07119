"""The LightningDataModule: which questions a run is trained and evaluated on."""

import warnings
from collections.abc import Sequence

import lightning as L
import torch

from mgpo.data.base import DataError, Source, check_ids, check_splits
from mgpo.data.batches import Batches, Decoded, Sample
from mgpo.data.mixture import Mixture
from mgpo.images.views import Resize
from mgpo.utils.interface import implementing
from mgpo.utils.least_values import check_keys


class VQAData(L.LightningDataModule):
    """Questions for training and, by split, for validation and testing. No boxes anywhere.

    Args:
        train: The source of training questions.
        val: Sources for validation; each reports under its own split.
        test: Sources for `test`; those of `val` where there are none.
        batch_size: Questions a step and process; each is rolled out as a whole group.
        eval_batch_size: Questions a batch in evaluation.
        num_workers: Processes that decode images ahead of the model.
        seed: Order of the training questions; by default `seed_everything` on the command line, else 0.
    """

    def __init__(
        self,
        train: Source | None = None,
        val: Sequence[Source] = (),
        test: Sequence[Source] = (),
        batch_size: int = 8,
        eval_batch_size: int = 64,
        num_workers: int = 1,
        seed: int | None = None,
    ) -> None:
        super().__init__()
        numbers = dict(batch_size=batch_size, eval_batch_size=eval_batch_size, num_workers=num_workers, seed=seed or 0)
        check_keys({f"data.{name}": value for name, value in numbers.items()})
        for key, sources in (("train", [train] if train is not None else []), ("val", val), ("test", test)):
            if not isinstance(sources, list | tuple):
                raise DataError(f"data.{key} is a list of sources, such as [{type(sources).__name__}(…)]")
            for source in sources:
                if isinstance(source, str):
                    raise DataError(f"data.{key} is the text {source!r}; a file is mgpo.data.Files({source!r})")
                implementing(Source, source, f"data.{key}")
        self.train, self.val, self.test = train, list(val), list(test)
        self.batch_size, self.eval_batch_size = batch_size, eval_batch_size
        self.num_workers, self.seed = num_workers, seed or 0
        self.first_view: Resize | None = None

    def see_at(self, first_view: Resize) -> None:
        """Be told the size at which a policy first sees pictures: large ones are decoded no further than that takes.

        Without it they are decoded in full. `MGPO` tells it once its policy is loaded.
        """
        self.first_view = first_view

    def setup(self, stage: str) -> None:
        """Warns of what the sources have left out, and of what else they have to say.

        Raises:
            DataError: Where two of `val`, or of `test`, report questions of the same name, or one reports as `train`.
        """
        for key, sources in (("val", self.val), ("test", self.test)):
            (check_splits if stage == "fit" else check_ids)(f"data.{key}", sources)
        for source in [self.train, *self.val, *self.test]:
            complaint = source.complaint() if source is not None and hasattr(source, "complaint") else None
            if complaint:
                warnings.warn(complaint, stacklevel=2)

    def names(self) -> set[str]:
        """The names of the sources that are parts of a mixture."""
        sources = [self.train, *self.val, *self.test]
        return {name for source in sources if isinstance(source, Mixture) for name, _ in source.named}

    def transfer_batch_to_device(self, batch: list[Sample], device: torch.device, dataloader_idx: int) -> list[Sample]:
        """Questions and originals stay where they are; views are moved when they are encoded."""
        return batch

    def train_dataloader(self) -> Batches:
        """Batches of training questions, in another order each epoch. Raises DataError without a source of them."""
        if self.train is None:
            raise DataError("data.train: name a source of training questions")
        return self._loader(self.train, self.batch_size, shuffle=True)

    def val_dataloader(self) -> list[Batches]:
        """Batches of each validation source, in order."""
        return [self._loader(source, self.eval_batch_size, shuffle=False) for source in self.val]

    def test_dataloader(self) -> list[Batches]:
        """Batches of each test source in order; of the validation sources where there is none."""
        return [self._loader(source, self.eval_batch_size, shuffle=False) for source in self.test or self.val]

    def _loader(self, source: Source, batch_size: int, shuffle: bool) -> Batches:
        world, rank = (self.trainer.world_size, self.trainer.global_rank) if self.trainer else (1, 0)
        data = Decoded(source, self.first_view)
        return Batches(data, world, rank, batch_size, shuffle, self.seed, self.num_workers)
