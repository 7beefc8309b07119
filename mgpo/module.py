"""The LightningModule: rollouts, rewards, advantages, updates. It wires; the mathematics is elsewhere."""

import copy
from collections import Counter
from collections.abc import Sequence
from typing import Any

import lightning as L
import torch
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from torch import Tensor, nn

from mgpo.data.module import Sample
from mgpo.dialogues import Dialogue, TwoTurn
from mgpo.errors import UserError
from mgpo.evaluation import Record, evaluate
from mgpo.metrics import rollout_metrics, score_metrics
from mgpo.objective import Normalisation, clipped_policy_loss, group_advantages, kl_k3, token_weights, weighted_sum
from mgpo.policy.base import Policy
from mgpo.policy.batch import Batch, collate
from mgpo.policy.logprobs import score
from mgpo.report import format_report, summarise
from mgpo.rewards import ExactAnswer, Reward
from mgpo.rollout import roll_out, seed_of
from mgpo.sampler import InProcessSampler, Sampling
from mgpo.types import Trajectory


class MGPO(L.LightningModule):
    """Multi-turn grounding-based policy optimisation (arXiv 2507.05920).

    One training step rolls out a group for each question, judges the answers, and makes
    `epochs` x `mini_batches` optimiser updates on the policy's own tokens of all turns.

    Args:
        policy: The model and how it sees.
        dialogue: What is said in each turn: TwoTurn for MGPO, SingleTurn for the GRPO baseline.
        reward: Judges the final answer.
        optimizer: Optimiser, by class path.
        lr_scheduler: Schedule over optimiser updates, by class path.
        group_size: Rollouts for each question (G).
        sampling: How rollouts are drawn.
        eval_sampling: How replies are drawn in validation; greedy by default.
        mini_batches: Updates in which the rollouts of a step are used.
        epochs: How often the rollouts of a step are used.
        micro_batch_size: Trajectories in one forward pass; lowers memory, changes nothing else.
        clip_low: Ratios below 1 - clip_low earn nothing further.
        clip_high: Ratios above 1 + clip_high earn nothing further.
        kl_weight: Weight of the k3 penalty against the policy as it was before training; 0 keeps no reference.
        scale_advantages: Divide advantages by the standard deviation of the group's rewards.
        normalisation: Whether every token or every trajectory of a mini-batch counts the same.
        max_grad_norm: Gradients are clipped to this norm.
        seed: Draws of the rollouts, together with step and question.
    """

    def __init__(
        self,
        policy: Policy,
        dialogue: Dialogue | None = None,
        reward: Reward | None = None,
        optimizer: OptimizerCallable = torch.optim.AdamW,
        lr_scheduler: LRSchedulerCallable | None = None,
        group_size: int = 8,
        sampling: Sampling = Sampling(),
        eval_sampling: Sampling = Sampling(temperature=0),
        mini_batches: int = 1,
        epochs: int = 1,
        micro_batch_size: int = 64,
        clip_low: float = 0.2,
        clip_high: float = 0.2,
        kl_weight: float = 0.0,
        scale_advantages: bool = True,
        normalisation: Normalisation = "token",
        max_grad_norm: float = 1.0,
        seed: int = 0,
    ) -> None:
        super().__init__()
        if group_size < 2:
            raise UserError(f"model.group_size is {group_size}; an advantage within a group needs at least 2 rollouts")
        self.automatic_optimization = False
        self.policy = policy
        self.references: list[Policy] = []  # in a list, so that checkpoints don't hold it
        self.dialogue, self.reward = dialogue or TwoTurn(), reward or ExactAnswer()
        self.sampler = InProcessSampler()
        self.make_optimizer, self.make_scheduler = optimizer, lr_scheduler
        self.group_size, self.sampling, self.eval_sampling = group_size, sampling, eval_sampling
        self.mini_batches, self.epochs, self.micro_batch_size = mini_batches, epochs, micro_batch_size
        self.clip_low, self.clip_high, self.kl_weight = clip_low, clip_high, kl_weight
        self.scale_advantages = scale_advantages
        self.normalisation: Normalisation = normalisation
        self.max_grad_norm, self.seed = max_grad_norm, seed
        self.skipped: Counter[str] = Counter()
        self.records: list[Record] = []
        self.rolled_out: list[Trajectory] = []

    def configure_model(self) -> None:
        if self.policy.model is not None:
            return
        self.policy.load().train()
        if self.kl_weight:
            self.references = [copy.deepcopy(self.policy).requires_grad_(False).eval()]

    def on_fit_start(self) -> None:
        for reference in self.references:
            reference.to(self.device)

    def configure_optimizers(self) -> Any:
        optimizer = self.make_optimizer(p for p in self.policy.parameters() if p.requires_grad)
        if self.make_scheduler is None:
            return optimizer
        return {"optimizer": optimizer, "lr_scheduler": self.make_scheduler(optimizer)}

    # Training

    def training_step(self, batch: list[Sample], batch_idx: int) -> None:
        samples = self.usable(batch)
        if not samples:
            return
        trajectories = self.roll_out(samples, self.global_step)
        rewards_BG = torch.tensor([t.reward for t in trajectories]).view(len(samples), self.group_size)
        advantages_N = group_advantages(rewards_BG, self.scale_advantages).flatten()
        self.rolled_out = trajectories
        self.show(rollout_metrics(trajectories, rewards_BG), len(trajectories))
        for epoch in range(self.epochs):
            order = _whole_groups(
                len(samples), self.group_size, self.mini_batches, (self.seed, self.global_step, epoch)
            )
            for rows in order:
                self.update([trajectories[i] for i in rows], advantages_N[rows])

    def usable(self, batch: Sequence[Sample]) -> list[tuple]:
        """The samples whose image could be decoded; the others are counted and shown."""
        for sample in batch:
            if sample.image is None and sample.question.id not in self.skipped:
                self.print(f"left out: question {sample.question.id}, {sample.why}")
                self.skipped[sample.question.id] += 1
        return [(sample.question, sample.image) for sample in batch if sample.image is not None]

    def roll_out(self, samples: Sequence[tuple], step: int) -> list[Trajectory]:
        """A judged group for each question, drawn from (seed, step, question, rollout) alone."""
        training = self.policy.training
        self.policy.eval()
        trajectories = roll_out(
            self.policy, self.sampler, self.dialogue, samples, self.group_size, self.sampling,
            (self.seed, step),
        )  # fmt: skip
        self.policy.train(training)
        for trajectory in trajectories:
            trajectory.reward = self.reward(trajectory.answer, trajectory.question)
        return trajectories

    def update(self, trajectories: list[Trajectory], advantages_N: Tensor) -> None:
        """One optimiser step on a mini-batch, in micro-batches whose weights sum to one."""
        optimizer: Any = self.optimizers()
        optimizer.zero_grad()
        lengths_N = torch.tensor([sum(len(turn.reply.ids) for turn in t.turns) for t in trajectories])
        weights_N = token_weights(lengths_N, self.normalisation)
        for rows in torch.arange(len(trajectories)).split(self.micro_batch_size):
            micro = [trajectories[i] for i in rows]
            # Without signal there is no gradient but that of the KL term; ranks must pass the same number of times.
            if not self.kl_weight and not advantages_N[rows].any() and self.trainer.world_size == 1:
                continue
            batch = collate(micro, self.policy.positions, self.policy.pad_id).to(self.device)
            loss = self.loss(batch, advantages_N[rows].to(self.device), weights_N[rows].to(self.device))
            self.manual_backward(loss)
        norm = nn.utils.clip_grad_norm_(self.policy.parameters(), self.max_grad_norm)
        optimizer.step()
        schedule: Any = self.lr_schedulers()
        if schedule is not None:
            schedule.step()
        self.show({"grad_norm": norm.item()}, len(trajectories))

    def loss(self, batch: Batch, advantages_N: Tensor, weights_N: Tensor) -> Tensor:
        """The part of the mini-batch's loss that these trajectories make."""
        scores = score(self.policy, batch, self.sampling.temperature)
        mask_NC, old_NC = batch.policy_NC, batch.sampled_logprobs_NC
        losses_NC = clipped_policy_loss(scores.logprobs_NC, old_NC, advantages_N, self.clip_low, self.clip_high)
        for reference in self.references:
            with torch.no_grad():
                reference_NC = score(reference, batch, self.sampling.temperature).logprobs_NC
            kl_NC = kl_k3(scores.logprobs_NC, reference_NC)
            losses_NC = losses_NC + self.kl_weight * kl_NC
            self.show({"kl": kl_NC.detach()[mask_NC].mean().item()}, len(mask_NC))
        self.show(score_metrics(batch, scores, self.clip_low, self.clip_high), len(mask_NC))
        return weighted_sum(losses_NC, mask_NC, weights_N)

    # Evaluation

    def on_validation_epoch_start(self) -> None:
        self.records = []

    def validation_step(self, batch: list[Sample], batch_idx: int, dataloader_idx: int = 0) -> None:
        samples = self.usable(batch)
        if samples:
            self.records += evaluate(
                self.policy, self.sampler, self.dialogue, samples, self.eval_sampling, self.reward, self.seed
            )

    def on_validation_epoch_end(self) -> None:
        self.records = _gather(self.records, self.trainer.world_size)
        self.summary = summarise(self.records)
        for split, numbers in self.summary["by_split"].items():
            for name in ("accuracy", "valid_box_ratio", "subimage_accuracy"):
                if numbers[name] is not None:
                    self.log(f"{split}/{name}", numbers[name], rank_zero_only=True, prog_bar=name == "accuracy")
        if not self.trainer.sanity_checking:
            self.print(format_report(self.summary))

    test_step = validation_step
    on_test_epoch_start = on_validation_epoch_start
    on_test_epoch_end = on_validation_epoch_end

    def predict_step(self, batch: list[Sample], batch_idx: int, dataloader_idx: int = 0) -> list[dict[str, Any]]:
        samples = self.usable(batch)
        arguments = (self.policy, self.sampler, self.dialogue, samples, self.eval_sampling, self.reward, self.seed)
        return [record.as_row() for record in evaluate(*arguments)] if samples else []

    def show(self, metrics: dict[str, float], n: int) -> None:
        """Log under "train/"; reward and valid boxes also in the progress bar."""
        for name, value in metrics.items():
            self.log(f"train/{name}", value, prog_bar=name in ("reward", "valid_box"), sync_dist=True, batch_size=n)


def _whole_groups(groups: int, size: int, mini_batches: int, key: tuple[int, ...]) -> list[list[int]]:
    """Rows of each mini-batch; a group is never split, and one mini-batch keeps the order."""
    order = torch.arange(groups)
    if mini_batches > 1:
        order = torch.randperm(groups, generator=torch.Generator().manual_seed(seed_of(*key)))
    parts = order.tensor_split(min(mini_batches, groups))
    return [[g * size + i for g in part.tolist() for i in range(size)] for part in parts]


def _gather(records: list[Record], world_size: int) -> list[Record]:
    """The records of all ranks, without the questions that padding gave to two of them."""
    if world_size > 1:
        everywhere: list[list[Record]] = [[] for _ in range(world_size)]
        torch.distributed.all_gather_object(everywhere, records)
        records = [record for part in everywhere for record in part]
    return list({(record.split, record.id): record for record in records}.values())
