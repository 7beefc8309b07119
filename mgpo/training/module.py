"""The LightningModule: rollouts, rewards, advantages, updates. It wires; the mathematics is elsewhere."""

import copy
from collections.abc import Sequence
from functools import partial
from typing import Any, Literal

import torch
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from torch import Tensor

from mgpo.checkpoints.whole import save_whole_files
from mgpo.data.batches import Sample
from mgpo.dialogues import Dialogue, TwoTurn
from mgpo.distributed import FSDP2Strategy, gathered
from mgpo.errors import UserError
from mgpo.metrics.record import records_of
from mgpo.objective import Objective
from mgpo.policy.base import Policy, evaluating
from mgpo.policy.passes.batch import Batch, collate
from mgpo.policy.passes.kernels import check_kernel
from mgpo.rewards import ExactAnswer, Reward
from mgpo.rewards.shaping import Shaping
from mgpo.rollout.episodes import Sampler, force_answers, judge, roll_out, shape_rewards
from mgpo.rollout.in_process import InProcessSampler, Sampling
from mgpo.training.evaluating import EvaluatedModule
from mgpo.training.finite_guard import Guard
from mgpo.training.going_on import GoOn
from mgpo.training.groups import DynamicSamplingPool, Groups, mini_batches
from mgpo.training.loop_settings import check_precision, check_scheduler, check_strategy
from mgpo.training.loss import answer_loss, policy_loss
from mgpo.training.micro_batches import passes
from mgpo.training.rescore import rescore
from mgpo.training.step_metrics import PassMetrics, Tally, rollout_metrics
from mgpo.types import Trajectory
from mgpo.utils.collectives import mean_over_ranks, share_objects

ANSWER_FORM = "\\boxed{{answer}}"


class MGPO(EvaluatedModule):
    """Multi-turn grounding-based policy optimisation (arXiv 2507.05920), and its baselines.

    One training step rolls out a group for each question, judges the answers, and makes
    `epochs` x `mini_batches` optimiser updates on the policy's own tokens of all turns.

    Args:
        policy: The model and how it sees.
        dialogue: What is said in each turn: TwoTurn for MGPO, SingleTurn for the GRPO baseline, FreeTurns.
        reward: Judges the final answer.
        shaping: Added to the reward in training only; accuracies never see them.
        objective: What is maximised.
        optimizer: Optimiser, by class path.
        lr_scheduler: Schedule over optimiser updates, by class path; none that waits for a metric.
        group_size: Rollouts for each question (G).
        constant_reward_groups: What becomes of groups whose rewards are all equal: they count in the loss's
            denominator (keep), or not (drop), or more questions are rolled out until the batch is full of
            others (refill; DAPO, arXiv 2503.14476, section 3.2).
        resample_batches: Batches of questions that one step may take for that.
        unfinished: Rollouts that ran into a limit without an answer: reward as it is (zero), or kept out of the
            group's statistics and the loss (mask; DAPO, section 3.4).
        supervised: Instead of all this, force the right answer into the last reply and learn that (SFT).
        answer_form: The reply that SFT forces; slot {answer}.
        sampler: What draws them: in process on the policy's own weights unless given, or `mgpo.vllm.VLLMSampler`.
        sampling: How rollouts are drawn.
        eval_sampling: How replies are drawn in validation; greedy by default.
        mini_batches: Updates in which the rollouts of a step are used.
        epochs: How often the rollouts of a step are used.
        micro_batch_tokens: Tokens in one training pass, a shared prompt counted once; fewer need less memory.
        max_grad_norm: Gradients are clipped to this norm.
        seed: Draws of the rollouts, together with step and question.
    """

    def __init__(
        self,
        policy: Policy,
        dialogue: Dialogue | None = None,
        reward: Reward | None = None,
        shaping: Sequence[Shaping] = (),
        objective: Objective = Objective(),
        optimizer: OptimizerCallable = torch.optim.AdamW,
        lr_scheduler: LRSchedulerCallable | None = None,
        group_size: int = 8,
        constant_reward_groups: Literal["keep", "drop", "resample"] = "keep",
        resample_batches: int = 4,
        unfinished: Literal["zero", "mask"] = "zero",
        supervised: bool = False,
        answer_form: str = ANSWER_FORM,
        sampler: Sampler | None = None,
        sampling: Sampling = Sampling(),
        eval_sampling: Sampling = Sampling(temperature=0),
        mini_batches: int = 1,
        epochs: int = 1,
        micro_batch_tokens: int = 16384,
        max_grad_norm: float = 1.0,
        seed: int = 0,
    ) -> None:
        super().__init__()
        if group_size < 2:
            raise UserError(f"model.group_size is {group_size}; an advantage within a group needs at least 2 rollouts")
        if min(mini_batches, epochs, micro_batch_tokens, resample_batches) < 1 or sampling.temperature == 0:
            raise UserError(
                "training needs mini_batches, epochs, micro_batch_tokens, resample_batches >= 1, temperature > 0"
            )
        if supervised and "{answer}" not in answer_form:
            raise UserError(f"model.answer_form is {answer_form!r}; it needs the slot {{answer}}")
        self.automatic_optimization = False
        self.policy, self.objective = policy, objective
        self.references: list[Policy] = []  # in a list, so that checkpoints don't hold it
        self.dialogue, self.reward, self.shaping = dialogue or TwoTurn(), reward or ExactAnswer(), shaping
        self.sampler = sampler or InProcessSampler()
        self.make_optimizer, self.make_scheduler = optimizer, lr_scheduler
        self.group_size, self.sampling, self.eval_sampling = group_size, sampling, eval_sampling
        self.constant_reward_groups, self.unfinished, self.pool = (
            constant_reward_groups,
            unfinished,
            DynamicSamplingPool(resample_batches),
        )
        self.supervised, self.answer_form = supervised, answer_form
        self.mini_batches, self.epochs, self.micro_batch_tokens = mini_batches, epochs, micro_batch_tokens
        self.max_grad_norm, self.seed = max_grad_norm, seed
        self.rolled_out: list[Trajectory] = []
        self.tally, self.published, self.guard = Tally(), dict[str, float](), Guard()

    def setup(self, stage: str) -> None:
        check_strategy(type(self.trainer.strategy).__name__)
        check_precision(str(self.trainer.precision))
        save_whole_files(self.trainer.strategy)

    def configure_model(self) -> None:
        if self.policy.model is None:
            self.policy.load().train()
            if self.objective.kl_weight and not self.supervised and self.policy.reference() is None:
                self.references = [copy.deepcopy(self.policy).requires_grad_(False).eval()]
        if isinstance(self.trainer.strategy, FSDP2Strategy):
            self.trainer.strategy.shard([self.policy, *self.references])

    def on_fit_start(self) -> None:
        check_kernel(self.device.type)
        self.policy.zero_grad()  # those of an update that an earlier fit broke off
        for reference in self.references:
            reference.to(self.device)

    def configure_callbacks(self) -> GoOn:
        return GoOn()

    def configure_optimizers(self) -> Any:
        optimizer = self.make_optimizer(p for p in self.policy.parameters() if p.requires_grad)
        if self.make_scheduler is None:
            return optimizer
        scheduler = self.make_scheduler(optimizer)
        check_scheduler(type(scheduler))
        return {"optimizer": optimizer, "lr_scheduler": scheduler}

    def training_step(self, batch: list[Sample], batch_idx: int) -> None:
        self.pool.drawn += self.constant_reward_groups == "resample"
        if samples := self.samples(batch):
            self.imitate(samples) if self.supervised else self.reinforce(samples)
        self.publish()

    def samples(self, batch: list[Sample]) -> list[tuple]:
        """The usable ones that fit, and as many as on every other rank: all pass equally often."""
        samples = self.fitting(self.usable(batch), self.sampling)
        return samples[: min(share_objects(len(samples), self.trainer.world_size))]

    def on_train_epoch_end(self) -> None:
        self.pool.clear()

    def reinforce(self, samples: Sequence[tuple]) -> None:
        """Roll out, judge, and learn once enough groups have a signal."""
        self.rolled_out = []  # the last step's originals need not wait for this one's
        with self.timer.phase("rollout") as work:
            groups = self.play(samples)
            self.rolled_out = groups.trajectories
            work.add(self.rolled_out)
        if not self.rolled_out:  # those of the first step are still being played
            return
        records = records_of(self.rolled_out, self.group_size, self.global_step)
        self.tally.add_all(rollout_metrics(records, self.group_size))
        self.tally.add({"constant_reward": 1 - groups.signal_B.float().mean().item()}, len(samples))
        if self.constant_reward_groups == "resample":
            full = self.pool.add(groups, len(samples))
            if not self.trainer.strategy.reduce_boolean_decision(full, all=True):
                return
            groups = self.pool.take(len(samples))
        self.learn(groups)

    def play(self, samples: Sequence[tuple]) -> Groups:
        """A step's rollouts, judged, with all that training adds to their rewards."""
        rolled_out = self.sampler.run(self.policy, partial(self.roll_out, samples, self.global_step))
        shape_rewards(rolled_out, self.shaping)
        return Groups.of(rolled_out, self.group_size, self.unfinished == "mask")

    def learn(self, groups: Groups) -> None:
        """All updates on one step's rollouts."""
        advantages_N = self.objective.advantages(groups.rewards_BG, groups.counted_BG).flatten()
        self.update_all(
            groups.trajectories, advantages_N, groups.counted_N(constant=self.constant_reward_groups == "keep")
        )

    def imitate(self, samples: Sequence[tuple]) -> None:
        """Supervised fine-tuning on the answer, in the same dialogue, under the same masks, in as many updates."""
        with self.timer.phase("rollout") as work:
            trajectories = self.roll_out(samples, self.global_step, copies=1)
            work.add(trajectories)
        force_answers(self.policy, trajectories, self.answer_form)
        played_N = torch.tensor([trajectory.failed is None for trajectory in trajectories])
        self.update_all(trajectories, torch.ones(len(samples)), played_N)

    def update_all(self, trajectories: list[Trajectory], advantages_N: Tensor, counted_N: Tensor) -> None:
        """Every epoch over these trajectories, in mini-batches of whole groups."""
        self.sampler.release()
        how = (self.micro_batch_tokens, self.trainer.world_size)
        if not self.supervised and not self.sampler.exact:
            with self.timer.phase("update"):
                parts = passes(trajectories, torch.ones(len(trajectories)), *how)
                self.tally.add(rescore(self.policy, trajectories, parts, self.objective, self.sampling.temperature), 1)
        size = 1 if self.supervised else self.group_size
        for epoch in range(self.epochs):
            key = (self.seed, self.global_step, epoch)
            for rows in mini_batches(len(trajectories) // size, size, self.mini_batches, key):
                with self.timer.phase("update") as work:
                    part = [trajectories[i] for i in rows]
                    self.update(part, advantages_N[rows], counted_N[rows])
                    work.add(part)

    def roll_out(self, samples: Sequence[tuple], step: int, copies: int | None = None) -> list[Trajectory]:
        """A judged group for each question, drawn from (seed, step, question, rollout) alone."""
        how = (copies or self.group_size, self.sampling, (self.seed, step))
        exact = self.sampler.exact  # an engine has weights of its own, and the policy may be learning meanwhile
        with evaluating(self.policy, exact), gathered(self.policy, exact):
            trajectories = roll_out(self.policy, self.sampler, self.dialogue, samples, *how)
        judge(trajectories, self.reward)
        for trajectory in trajectories:
            if trajectory.failed is not None:
                self.leave_out(trajectory.question, trajectory.failed)
        return trajectories

    def update(self, trajectories: list[Trajectory], advantages_N: Tensor, counted_N: Tensor) -> None:
        """One optimiser step on a mini-batch, in micro-batches whose weights belong to the whole."""
        lengths_N = torch.tensor([sum(len(turn.reply.ids) for turn in t.turns if turn.learnt) for t in trajectories])
        mean = partial(mean_over_ranks, world_size=self.trainer.world_size)
        weights_N = self.objective.weights(lengths_N, counted_N, mean)

        def part(rows: list[int]) -> tuple[Tensor, PassMetrics]:
            batch = collate([trajectories[i] for i in rows], self.policy.positions, self.policy.pad_id).to(self.device)
            return self.loss(batch, advantages_N[rows].to(self.device), weights_N[rows].to(self.device))

        whole = 0.0
        moved_N = weights_N if self.objective.kl_weight else weights_N * advantages_N
        for rows in passes(trajectories, moved_N, self.micro_batch_tokens, self.trainer.world_size):
            loss, metrics = part(rows)
            self.manual_backward(loss)
            self.tally.add_pass(metrics)
            whole += loss.item()
        self.guard.step(self, whole, trajectories, part)

    def loss(self, batch: Batch, advantages_N: Tensor, weights_N: Tensor) -> tuple[Tensor, PassMetrics]:
        """The part of the mini-batch's loss that a micro-batch makes, and metrics."""
        if self.supervised:
            return answer_loss(self.policy, batch, weights_N)
        how = (self.objective, self.sampling.temperature, next(iter(self.references), None))
        return policy_loss(self.policy, batch, advantages_N, weights_N, *how)

    def publish(self) -> None:
        """Log a step's means and maxima over all ranks under "train/"; reward and valid boxes also in the progress bar.

        One exchange a step: ranks may have different metrics, such as those of a third turn. A name that has no
        value in a step keeps its last one in the loggers; `published` holds the step's own.
        """
        self.published = self.tally.over_ranks(self.trainer.world_size)
        self.log("step", float(self.global_step))  # the loggers' axis: optimiser updates, however many a batch makes
        for name, value in self.published.items():
            self.log(f"train/{name}", value, prog_bar=name in ("reward", "valid_box"), batch_size=1)
        self.tally = Tally()
