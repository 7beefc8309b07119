"""The LightningModule: one training step of the algorithm, from top to bottom. The mathematics is elsewhere."""

import copy
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from lightning.pytorch.utilities import rank_zero_info
from torch import Tensor

from mgpo.checkpoints.whole import load_state, save_whole_files
from mgpo.data.batches import Sample
from mgpo.data.module import VQAData
from mgpo.dialogues import Dialogue, TwoTurn, answer_only
from mgpo.distributed import FSDP2Strategy, clip_gradients
from mgpo.errors import UserError
from mgpo.objective import Objective
from mgpo.policy.base import Policy
from mgpo.policy.hub.run_weights import policy_weights
from mgpo.policy.passes.batch import collate
from mgpo.policy.passes.kernels import check_kernel
from mgpo.policy.passes.micro_batches import passes
from mgpo.rewards import BySource, ExactAnswer, Reward, Shaping, as_reward
from mgpo.rollout.episodes import ANSWER_FORM, Sampler
from mgpo.rollout.in_process import InProcessSampler, Sampling
from mgpo.training.choices import check_choices
from mgpo.training.credit import Credit
from mgpo.training.finite_guard import FiniteGuard, all_finite, cause_of
from mgpo.training.going_on import GoOn
from mgpo.training.groups import DynamicSamplingPool, Groups, MiniBatch, mini_batches
from mgpo.training.loop_settings import check_trainer, made_optimizers
from mgpo.training.loss import answer_loss, policy_loss
from mgpo.training.rollouts import RolloutModule
from mgpo.training.saved_run import arguments_of, find_run
from mgpo.training.self_teacher import SelfTeacher
from mgpo.training.step_metrics import PassMetrics
from mgpo.training.validations import check_validations
from mgpo.utils.allocator import moved
from mgpo.utils.collectives import mean_over_ranks
from mgpo.utils.own_code import blaming


class MGPO(RolloutModule):
    """Multi-turn grounding-based policy optimisation (arXiv 2507.05920), and its baselines.

    One training step rolls out a group for each question, judges the answers, and makes
    `epochs` x `mini_batches` optimiser updates on the policy's own tokens of all turns.

    Args:
        policy: The model and how it sees.
        dialogue: What is said in each turn: TwoTurn for MGPO, SingleTurn for the GRPO baseline, FreeTurns.
        reward: Judges the final answer: a class or function that takes answer and question, by name or by position.
        shaping: Added to the reward in training only; accuracies never see them.
        objective: What is maximised.
        optimizer: Optimiser, by class path.
        lr_scheduler: Schedule over optimiser updates, by class path; none that waits for a metric.
        group_size: Rollouts for each question (G).
        credit: Whether all replies are learnt with the answer's advantage alone (answer), or each look with that of its
            own crop as well (turn): how much likelier it makes the right answer than a black one would.
        constant_reward_groups: What becomes of groups whose rewards are all equal: they count in the loss's
            denominator (keep), or not (drop), or more questions are rolled out until the batch is full of
            others (resample; DAPO, arXiv 2503.14476, section 3.2).
        resample_batches: Batches of questions that one step may take for that.
        unfinished: Rollouts that ran into a limit without an answer: reward as it is (zero), or kept out of the
            group's statistics and the loss (mask; DAPO, section 3.4).
        supervised: Instead of all this, force the right answer into the last reply and learn that (SFT); or learn
            whole the rollouts that questions bring (`mgpo.data.OwnRollouts`).
        answer_form: The reply that SFT forces, and whose likelihood is the evidence; slot {answer}.
        teacher: Instead of rewards, a copy of the policy judges each token from its own crop, while the policy answers
            at one glance; the dialogue is then `answer_only` unless given.
        sampler: What draws them: in process on the policy's own weights unless given, or `mgpo.vllm.VLLMSampler`.
        sampling: How rollouts are drawn.
        eval_sampling: How replies are drawn in validation; greedy by default.
        mini_batches: Updates in which the rollouts of a step are used.
        epochs: How often the rollouts of a step are used.
        micro_batch_tokens: Tokens in one training pass, a shared prompt counted once; fewer need less memory.
        max_grad_norm: Gradients are clipped to this norm.
        seed: Draws of the rollouts, together with step and question; by default
            `seed_everything` on the command line, else 0.
    """

    def __init__(
        self,
        policy: Policy,
        dialogue: Dialogue | None = None,
        reward: Reward | str | None = None,
        shaping: Sequence[Shaping] = (),
        objective: Objective = Objective(),
        optimizer: OptimizerCallable = torch.optim.AdamW,
        lr_scheduler: LRSchedulerCallable | None = None,
        group_size: int = 8,
        credit: Credit = "answer",
        constant_reward_groups: Literal["keep", "drop", "resample"] = "keep",
        resample_batches: int = 4,
        unfinished: Literal["zero", "mask"] = "zero",
        supervised: bool = False,
        answer_form: str = ANSWER_FORM,
        teacher: SelfTeacher | None = None,
        sampler: Sampler | None = None,
        sampling: Sampling = Sampling(),
        eval_sampling: Sampling = Sampling(temperature=0),
        mini_batches: int = 1,
        epochs: int = 1,
        micro_batch_tokens: int = 16384,
        max_grad_norm: float = 1.0,
        seed: int | None = None,
    ) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.policy, self.objective = policy, objective
        self.references: list[Policy] = []  # in a list, so that checkpoints don't hold it
        self.dialogue = dialogue or (TwoTurn() if teacher is None else answer_only())
        self.reward, self.shaping = as_reward(reward or ExactAnswer()), shaping
        self.sampler = sampler or InProcessSampler()
        self.make_optimizer, self.make_scheduler = optimizer, lr_scheduler
        self.group_size, self.sampling, self.eval_sampling = group_size, sampling, eval_sampling
        self.credit: Credit = credit
        self.constant_reward_groups, self.unfinished = constant_reward_groups, unfinished
        self.pool = DynamicSamplingPool(resample_batches)
        self.supervised, self.answer_form, self.teacher = supervised, answer_form, teacher
        self.mini_batches, self.epochs, self.micro_batch_tokens = mini_batches, epochs, micro_batch_tokens
        self.max_grad_norm, self.seed = max_grad_norm, seed or 0
        self.guard = FiniteGuard()
        check_choices(self)

    @classmethod
    def load_from_checkpoint(cls, checkpoint_path: Any, map_location: Any = "cpu", **arguments: Any) -> "MGPO":  # type: ignore[override]
        """The module of a run with what it has learnt, to be validated, trained on, or looked at.

        Args:
            checkpoint_path: A run's folder such as "runs/mgpo/version_0", or a checkpoint in it.
            map_location: A device for the weights.
            arguments: In place of those of the run's configuration.

        Raises:
            UserError: Where the configuration or the weights are missing or damaged.
        """
        config, checkpoint = find_run(Path(checkpoint_path))
        module = cls(**{**arguments_of(cls, config, set(arguments)), **arguments})
        module.policy.load().load_state_dict(policy_weights(str(checkpoint)))
        module.loaded_step = load_state(checkpoint)["global_step"]
        return module.to(map_location)

    @property
    def data(self) -> VQAData:
        """What the trainer asks about."""
        return self.trainer.datamodule  # pyright: ignore[reportAttributeAccessIssue]

    def setup(self, stage: str) -> None:
        """Checks trainer and data, and has checkpoints saved whole or not at all.

        Raises:
            UserError: For a trainer with which this can't be trained, or loaders in place of `VQAData`.
        """
        check_trainer(self.trainer, taught=self.teacher is not None)
        save_whole_files(self.trainer.strategy)
        if not isinstance(self.data, VQAData):
            raise UserError(
                f"trainer.{self.trainer.state.fn.value}: questions come from a mgpo.data.VQAData, such as "  # type: ignore[union-attr]
                "VQAData(train=Files(…), val=[Files(…)]), which makes its loaders itself"
            )
        if isinstance(self.reward, BySource):
            self.reward.check(self.data.names())
        if stage == "fit":
            self.loaded_step = 0  # until a checkpoint is gone on with
            self.check_validations(self.trainer, self.data)

    def check_validations(self, trainer: Any, data: VQAData) -> None:
        """Raises UserError where validations could not come as they are asked for."""
        unknown = self.constant_reward_groups == "resample" or getattr(self.sampler, "ahead", False)
        updates = None if unknown else min(self.mini_batches, data.batch_size) * self.epochs
        check_validations(trainer, data, self.metrics.keys(), updates)

    def configure_model(self) -> None:
        """Loads the policy, keeps the reference for the penalty, and shards both where the strategy does that."""
        if self.policy.model is None:
            self.policy.load().train()
        penalised = self.objective.kl_weight and not self.supervised
        if penalised and not self.references and self.policy.reference() is None:
            self.references = [copy.deepcopy(self.policy).requires_grad_(False).eval()]
            if self.trainer.state.fn != "fit" and not isinstance(self.trainer.strategy, FSDP2Strategy):
                self.references[0].to("cpu")  # no evaluation asks it
        self.data.see_at(self.policy.resolution.full)
        if self.teacher is not None:
            self.teacher.begin(self.policy)
        if isinstance(self.trainer.strategy, FSDP2Strategy):
            self.trainer.strategy.shard([self.policy, *self.references])

    def on_fit_start(self) -> None:
        """Looks for the kernel of the device, drops what an earlier fit left behind, and moves the reference there."""
        check_kernel(self.device.type)
        self.policy.train()
        if (forget := getattr(self.sampler, "forget", None)) is not None:
            forget()
        sizes = [(p.numel(), p.requires_grad) for p in self.policy.parameters()]
        rank_zero_info(
            f"{sum(n for n, learns in sizes if learns):,} of {sum(n for n, _ in sizes):,} parameters are trained"
        )
        for reference in self.references:
            reference.to(self.device)
        if self.teacher is not None:
            self.teacher.to(self.device)

    def configure_callbacks(self) -> GoOn:
        """The callback that goes on behind a checkpoint exactly."""
        return GoOn()

    def configure_optimizers(self) -> Any:
        """The optimiser over all weights that are trained, with its scheduler where there is one."""
        trained = (p for p in self.policy.parameters() if p.requires_grad)
        return made_optimizers(trained, self.make_optimizer, self.make_scheduler)

    def training_step(self, batch: list[Sample], batch_idx: int) -> None:
        """One step: roll out, reward, advantages; then an update for each mini-batch (paper, sections 3.1 and 3.2).

        Rewarded groups are rolled out once and used in `epochs` x `mini_batches` updates. The gradient of an update is
        summed over micro-batches, whose weights belong to the whole mini-batch.
        """
        groups = self.right_answers(batch) if self.supervised else self.rewarded_groups(batch)
        if groups is not None:
            self.sampler.release()
            self.rescore(groups)
            advantages = self.advantages(groups)
            optimizer: Any = self.optimizers()
            schedule: Any = self.lr_schedulers()
            for epoch in range(self.epochs):
                for rows in mini_batches(groups, self.mini_batches, key=(self.seed, self.global_step, epoch)):
                    with self.timer.phase("update") as work:
                        mini_batch = self.mini_batch(groups, advantages, rows)
                        losses = []
                        for part in self.micro_batches(mini_batch):
                            loss, metrics = self.loss(part)
                            self.manual_backward(loss)
                            losses.append(loss.detach())
                            self.tally.add_pass(metrics)
                        norm = clip_gradients(self.policy, self.max_grad_norm)
                        total = sum((loss.item() for loss in losses), 0.0)  # now: no pass waits for the one before
                        finite = self.everywhere(all_finite(total, norm, mini_batch.trajectories))
                        self.tally.add({"lr": float(optimizer.param_groups[0]["lr"])}, 1)
                        if finite:
                            optimizer.step()
                            if schedule is not None:
                                with blaming("model.lr_scheduler"):
                                    schedule.step()
                            if self.teacher is not None:
                                self.teacher.follow(self.policy)
                        optimizer.zero_grad()  # now, so that no gradients are held through rollouts
                        self.tally.add({"grad_norm": norm, "loss": total, "skipped_updates": float(not finite)}, 1)
                        self.guard.count(finite, cause=partial(self.cause_of_nonfinite, mini_batch), say=self.print)
                        work.add(mini_batch.trajectories)
        self.publish()

    def on_train_epoch_end(self) -> None:
        """Drops the groups that still wait for others: none is learnt in a later epoch, under other weights."""
        self.pool.clear()

    def mini_batch(self, groups: Groups, advantages: list[Tensor], rows: list[int]) -> MiniBatch:
        """These trajectories with the weight of each of their tokens in the mini-batch of all ranks."""
        trajectories = [groups.trajectories[row] for row in rows]
        counted_N = groups.counted_N(constant=self.supervised or self.constant_reward_groups == "keep")[rows]
        lengths_N = torch.tensor([trajectory.learnt_tokens for trajectory in trajectories])
        mean = partial(mean_over_ranks, world_size=self.trainer.world_size)
        weights_N = self.objective.weights(lengths_N, counted_N, mean)
        return MiniBatch(trajectories, [advantages[row] for row in rows], weights_N)

    def micro_batches(self, mini_batch: MiniBatch) -> list[MiniBatch]:
        """Parts of at most `micro_batch_tokens`, of what has a gradient; equally many on every rank."""
        always = self.objective.kl_weight or self.objective.entropy_weight
        moved_N = mini_batch.weights_N if always else mini_batch.moved_N
        rows = passes(mini_batch.trajectories, moved_N, self.micro_batch_tokens, self.trainer.world_size)
        return [mini_batch.select(part) for part in rows]

    def loss(self, part: MiniBatch) -> tuple[Tensor, PassMetrics]:
        """What a micro-batch adds to its mini-batch's loss, and metrics."""
        batch = collate(part.trajectories, self.policy.positions, self.policy.pad_id).to(self.device)
        weights_N = moved(part.weights_N, self.device)
        if self.supervised:
            return answer_loss(self.policy, batch, weights_N)
        return policy_loss(
            self.policy, batch, part.advantages_NC(batch.policy_NC), weights_N,
            objective=self.objective, temperature=self.sampling.temperature, frozen=next(iter(self.references), None),
            begins=self.begins,
        )  # fmt: skip

    def everywhere(self, true: bool) -> bool:
        """Whether it is true on all ranks, which all must ask."""
        return self.trainer.strategy.reduce_boolean_decision(true, all=True)

    def cause_of_nonfinite(self, mini_batch: MiniBatch) -> str:
        """Which question gave a number that is not finite, in one line. All ranks must ask."""
        sharded = isinstance(self.trainer.strategy, FSDP2Strategy)  # there a gradient takes all ranks
        return cause_of(
            mini_batch, self.loss, policies=(self.policy, *self.references),
            parameters=[] if sharded else [p for p in self.policy.parameters() if p.requires_grad],
            world_size=self.trainer.world_size,
        )  # fmt: skip
