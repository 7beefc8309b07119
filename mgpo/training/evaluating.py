"""What the module does besides learning: validation and testing, greedy by default."""

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any, cast

import lightning as L
from torch import nn

from mgpo import metrics
from mgpo.checkpoints.loop_state import check
from mgpo.data.base import DataError
from mgpo.data.batches import Sample
from mgpo.dialogues import Dialogue
from mgpo.distributed import gathered
from mgpo.evaluation.greedy import assess, gather
from mgpo.evaluation.report import format_lines, format_report, summarise
from mgpo.metrics.record import Record
from mgpo.policy.base import Policy
from mgpo.rewards import Reward
from mgpo.rollout.episodes import Sampler, roll_out
from mgpo.rollout.fitting import in_process, most_of, opening_too_long
from mgpo.rollout.in_process import Sampling
from mgpo.training.phase_timer import PhaseTimer
from mgpo.types import Question


def evaluation_metrics() -> dict[str, metrics.RecordMetric]:
    """By the name under which it is logged, of each split."""
    return {
        "accuracy": metrics.Accuracy(by="split"),
        "valid_box_ratio": metrics.ValidBoxRatio(by="split"),
        "crop_rate": metrics.CropRate(by="split"),
        "subimage_accuracy": metrics.SubimageAccuracy(by="split"),
        "subimage_share": metrics.SubimageShare(by="split"),
        "zoom_factor": metrics.ZoomFactor(by="split"),
        "crop_area_share": metrics.CropAreaShare(by="split"),
        "turns": metrics.TurnsPerEpisode(by="split"),
        "fallback_rate": metrics.FallbackRate(by="split"),
    }


class EvaluatedModule(L.LightningModule):
    """A policy that plays a dialogue on every question of the validation or test sources."""

    policy: Policy
    dialogue: Dialogue
    reward: Reward
    sampler: Sampler
    eval_sampling: Sampling
    seed: int

    def __init__(self) -> None:
        super().__init__()
        self.timer = PhaseTimer()
        self.loaded_step = 0  # of the checkpoint that the weights came from
        self.skipped: set[tuple[str, str]] = set()  # questions that could not be played: split and id
        self.records: list[Record] = []
        self.left_out: dict[tuple[str, str], str] = {}  # since the last evaluation began: (split, id), and why
        self.asked: set[tuple[str, str]] = set()  # in it: split and id
        # a submodule, so that states follow the device; they are no parameters and in no checkpoint
        self.metrics = cast(dict[str, metrics.RecordMetric], nn.ModuleDict(evaluation_metrics()))

    @property
    def step(self) -> int:
        """Optimiser updates that the weights have seen; Lightning counts those of `fit` only."""
        return self.global_step or self.loaded_step

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Takes over how many updates the weights have seen, and checks that training can go on from them."""
        if self._trainer is not None and self._trainer.state.fn == "fit":
            check(checkpoint)
        self.loaded_step = checkpoint["global_step"]
        self.sampler.release()

    @contextmanager
    def under_precision(self, passes: bool = True) -> Iterator[None]:
        """The whole policy under the trainer's precision, which Lightning sets around its own steps only: callbacks
        run the policy in it. All ranks must enter, and may then pass as often as they like.

        An engine on the same device leaves no room for that, and is put to sleep. Without `passes` it stays awake, and
        shards stay shards.
        """
        if passes:
            self.sampler.release()
        with self.trainer.precision_plugin.forward_context(), gathered(self.policy, passes):
            yield

    def usable(self, batch: Sequence[Sample]) -> list[tuple]:
        """The samples whose images could be decoded; the others are counted and shown."""
        for sample in batch:
            if sample.image is None:
                self.leave_out(sample.question, sample.why)
        return [(sample.question, sample.image, *sample.others) for sample in batch if sample.image is not None]

    def fitting(self, samples: Sequence[tuple], sampling: Sampling) -> list[tuple]:
        """Those whose first prompt leaves room for a reply; the others are counted and shown."""
        fitting: list[tuple] = []
        for question, image, *others in samples:
            reply, most = sampling.max_new_tokens, most_of(self.sampler)
            why = opening_too_long(self.policy, self.dialogue, question, image, reply, others, most)
            if why is None:
                fitting.append((question, image, *others))
            else:
                self.leave_out(question, why)
        return fitting

    def leave_out(self, question: Question, why: str) -> None:
        """Count a question that can't be played, and show it the first time."""
        key = (question.split, question.id)
        self.left_out[key] = why
        if key not in self.skipped:
            say = print if self.global_rank else self.print  # the other ranks have no bar to write above
            self.skipped.add(key)
            say(f"left out: question {question.id}, {why}")

    def tell_apart(self, batch: Sequence[Sample]) -> None:
        """Raises DataError where two questions of an evaluation have one name: their records would be one.

        What pads the batches of several ranks is never a rank's own question again.
        """
        for question in (sample.question for sample in batch):
            if (key := (question.split, question.id)) in self.asked:
                raise DataError(
                    f"two questions of the split {question.split!r} have the id {question.id!r}, and one would hide "
                    "the other; give each an id of its own"
                )
            self.asked.add(key)

    def on_train_end(self) -> None:
        """Says how many questions were left out in the whole run, over all ranks."""
        skipped = gather(sorted(self.skipped), lambda key: key, self.trainer.world_size)
        if skipped:
            self.print(f"left out in this run: {len(skipped)} questions; each was named, with its reason")

    def on_validation_epoch_start(self) -> None:
        """Empties records and metrics, and has the sampler take the weights as they are; on all ranks."""
        self.records, self.left_out, self.asked = [], {}, set()
        for metric in self.metrics.values():
            metric.reset()
            metric.update([])  # a rank may get no batch
        self.sampler.prepare(self.policy)  # nor open anything

    def validation_step(self, batch: list[Sample], batch_idx: int, dataloader_idx: int = 0) -> None:
        """Plays the questions of a batch greedily, and keeps a record of each."""
        self.tell_apart(batch)
        samples = self.fitting(self.usable(batch), self.eval_sampling)
        with self.timer.phase("evaluation"), gathered(self.policy, in_process(self.sampler)):  # all ranks
            if samples:
                records = assess(
                    partial(roll_out, self.policy, self.sampler), self.policy.resolution, self.dialogue, samples,
                    self.eval_sampling, self.reward, self.seed, self.step, self.leave_out,
                )  # fmt: skip
                self.records += records
                for metric in self.metrics.values():
                    metric.update(records)

    def on_validation_epoch_end(self) -> None:
        """Gathers the records of all ranks, sums them up, logs the metrics by split and prints the report."""
        self.records = gather(self.records, lambda record: (record.split, record.id), self.trainer.world_size)
        left_out = gather(list(self.left_out.items()), lambda item: item[0], self.trainer.world_size)
        self.summary = summarise(self.records)
        self.summary["left_out"] = [{"split": split, "id": name, "why": why} for (split, name), why in left_out]
        for name, metric in self.metrics.items():
            for split, value in sorted(metric.compute().items()):
                if not math.isnan(value):  # the same on all ranks, each of which may have to stop or to save by it
                    self.log(f"{split}/{name}", value.item(), sync_dist=True, prog_bar=name == "accuracy")
        self.log("step", float(self.step), rank_zero_only=True)  # the loggers' axis, as in training
        if not self.trainer.sanity_checking:
            amid = self.trainer.state.fn == "fit"
            self.print(format_lines(self.summary, self.step) if amid else format_report(self.summary))
            if left_out:
                (_, first), why = left_out[0]
                count = f"{len(left_out)} of {len(left_out) + len(self.records)} questions"
                self.print(f"not scored: {count}; the first, {first}, because {why}")

    test_step = validation_step
    on_test_epoch_start = on_validation_epoch_start
    on_test_epoch_end = on_validation_epoch_end
