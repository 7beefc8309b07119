"""What the module does before it learns, a step's questions rolled out in groups and rewarded; and its metrics."""

from collections.abc import Sequence
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor

from mgpo.data.batches import Sample
from mgpo.distributed import gathered
from mgpo.errors import UserError
from mgpo.evaluation.evidence import look_margins
from mgpo.metrics.record import record_of
from mgpo.objective import Objective
from mgpo.policy.base import evaluating
from mgpo.policy.passes.micro_batches import passes
from mgpo.rewards import Shaping
from mgpo.rewards.correctness import counts_of
from mgpo.rollout.episodes import force_answers, judge, roll_out, shape_rewards
from mgpo.rollout.fitting import in_process
from mgpo.rollout.in_process import Sampling
from mgpo.rollout.replay import play_again
from mgpo.training.credit import Credit, token_advantages
from mgpo.training.evaluating import EvaluatedModule
from mgpo.training.groups import DynamicSamplingPool, Groups
from mgpo.training.loss import rescore
from mgpo.training.self_teacher import SelfTeacher
from mgpo.training.step_metrics import Tally, rollout_metrics
from mgpo.types import Trajectory
from mgpo.utils.collectives import share_objects

TEACHER = "teacher"  # in a checkpoint


class RolloutModule(EvaluatedModule):
    """An evaluated module that also rolls out groups to learn from."""

    shaping: Sequence[Shaping]
    sampling: Sampling
    group_size: int
    credit: Credit
    supervised: bool
    teacher: SelfTeacher | None
    constant_reward_groups: Literal["keep", "drop", "resample"]
    unfinished: Literal["zero", "mask"]
    answer_form: str
    pool: DynamicSamplingPool
    objective: Objective
    micro_batch_tokens: int
    mini_batches: int
    epochs: int

    def __init__(self) -> None:
        super().__init__()
        self.rolled_out: list[Trajectory] = []  # in this step, for callbacks
        self.tally, self.published = Tally(), dict[str, float]()  # metrics of this step, and of the last one

    def rewarded_groups(self, batch: Sequence[Sample]) -> Groups | None:
        """A group of rewarded rollouts for each question of a batch; None while others are waited for.

        Under dynamic sampling (DAPO, arXiv 2503.14476, section 3.2) groups wait for those of further batches until as
        many as a batch has questions have rewards that differ. A sampler that runs ahead gives nothing in the first
        step. All ranks must call.
        """
        self.pool.drawn += self.constant_reward_groups == "resample"
        samples = self.playable(batch)
        if not samples:
            return None
        self.rolled_out = []  # the last step's originals need not wait for this one's
        with self.timer.phase("rollout") as work:
            groups = self.play(samples)
            self.rolled_out = groups.trajectories
            work.add(self.rolled_out)
        if not self.rolled_out:
            return None
        self.tally.add_all({"evidence_margin": self.measure_looks(groups)})
        played = [[record_of(trajectory) for trajectory in group] for group in groups.played]
        metrics, counts = rollout_metrics(played, self.group_size), counts_of(self.reward)
        if taken := sorted(metrics.keys() & counts.keys()):
            raise UserError(f"the reward counts {taken[0]!r}, which is a curve of training already; call it otherwise")
        self.tally.add_all(metrics)
        self.tally.add(counts, 1)
        if self.teacher is None:
            self.tally.add({"constant_reward": 1 - groups.signal_B.float().mean().item()}, len(groups.signal_B))
        if self.constant_reward_groups != "resample":
            return groups
        full = self.pool.add(groups, len(samples))
        if not self.trainer.strategy.reduce_boolean_decision(full, all=True):
            return None
        return self.pool.take(len(samples))

    def playable(self, batch: Sequence[Sample]) -> list[tuple]:
        """The usable samples that fit, and as many as on every other rank: all pass equally often."""
        samples = self.fitting(self.usable(batch), self.sampling)
        count = min(share_objects(len(samples), self.trainer.world_size))
        for question, *_ in samples[count:]:
            self.leave_out(question, "another rank has one less that can be played")
        return samples[:count]

    def play(self, samples: Sequence[tuple]) -> Groups:
        """A step's groups, with all that training adds to their rewards; with a sampler that runs ahead the last's."""
        trajectories = self.sampler.run(self.policy, partial(self.roll_out, samples, self.global_step))
        shape_rewards(trajectories, self.shaping)
        return Groups.of(trajectories, self.group_size, mask_unfinished=self.unfinished == "mask")

    def measure_looks(self, groups: Groups) -> list[float]:
        """Put into each look what its crop is worth under the weights of now, where that is learnt. All ranks must.

        Returns:
            The evidence margins of the rollouts with a crop.
        """
        if self.credit == "answer":
            return []
        self.sampler.release()  # an engine on the same device leaves no room
        played = [t for t, counts in zip(groups.trajectories, groups.counted_BG.flatten().tolist()) if counts]
        with self.timer.phase("evidence"), gathered(self.policy), self.policy.at_rest():
            margins = look_margins(self.policy, played, self.answer_form, self.micro_batch_tokens, crops_alone=True)
        for trajectory, values in zip(played, margins, strict=True):
            for turn, value in zip(trajectory.turns, values):
                turn.evidence = value
        return [sum(values) for t, values in zip(played, margins) if t.crops]

    def roll_out(self, samples: Sequence[tuple], step: int, copies: int | None = None) -> list[Trajectory]:
        """A judged group for each question, drawn from (seed, step, question, rollout) alone."""
        here = in_process(self.sampler)
        with evaluating(self.policy, here), gathered(self.policy, here):
            trajectories = roll_out(
                self.policy, self.sampler, self.dialogue, samples,
                copies=copies or self.group_size, sampling=self.sampling, key=(self.seed, step),
            )  # fmt: skip
        judge(trajectories, self.reward)
        self.leave_out_failed(trajectories)
        return trajectories

    def play_again(self, samples: Sequence[tuple]) -> list[Trajectory]:
        """The rollouts that the questions bring, played again."""
        trajectories = play_again(self.policy, self.dialogue, samples, self.reward, self.sampling)
        self.leave_out_failed(trajectories)
        return trajectories

    def leave_out_failed(self, trajectories: Sequence[Trajectory]) -> None:
        """Count the questions of those that were not played to the end."""
        for trajectory in trajectories:
            if trajectory.failed is not None:
                self.leave_out(trajectory.question, trajectory.failed)

    def right_answers(self, batch: Sequence[Sample]) -> Groups | None:
        """One rollout a question, with the right answer forced into its last reply: what supervised fine-tuning learns.

        Questions that bring a rollout of the policy's own have that one played again, to be learnt as a whole
        (rejection-sampling fine-tuning). It is the same dialogue under the same masks. Where there is nothing to
        compare, each is its own group.
        """
        samples = self.playable(batch)
        if not samples:
            return None
        imitated = any(question.imitated is not None for question, *_ in samples)
        with self.timer.phase("rollout") as work:
            trajectories = self.play_again(samples) if imitated else self.roll_out(samples, self.global_step, copies=1)
            work.add(trajectories)
        if not imitated:
            force_answers(self.policy, trajectories, self.answer_form)
        played_B1 = torch.tensor([[trajectory.failed is None] for trajectory in trajectories])
        return Groups(trajectories, torch.ones(len(trajectories), 1), played_B1)

    @property
    def begins(self) -> bool:
        """Whether every pass over an engine's rollouts is under the weights of the step's beginning: there is but one
        update. A teacher needs to know their log-probs before that."""
        return not self.sampler.exact and self.epochs == self.mini_batches == 1 and self.teacher is None

    def rescore(self, groups: Groups) -> None:
        """Put the trainer's own log-probs beside those of a sampler that computes otherwise.

        A step's only update needs no pass for that: it `begins` with them.
        """
        if self.supervised or self.sampler.exact or self.begins:
            return
        with self.timer.phase("update"):
            everything_N = torch.ones(len(groups.trajectories))
            parts = passes(groups.trajectories, everything_N, self.micro_batch_tokens, self.trainer.world_size)
            gaps = rescore(self.policy, groups.trajectories, parts, self.objective, self.sampling.temperature)
            self.tally.add_pass(gaps)

    def advantages(self, groups: Groups) -> list[Tensor]:
        """Of each trajectory's learnt tokens: relative to its group, or as the teacher says; 1 for what is imitated."""
        if self.supervised:
            return [torch.ones(trajectory.learnt_tokens) for trajectory in groups.trajectories]
        if self.teacher is None:
            return token_advantages(groups, self.objective)
        key = (self.seed, self.global_step)
        with self.timer.phase("teacher"):
            advantages, gaps = self.teacher.advantages(
                groups.trajectories, self.group_size, self.sampling, key, self.micro_batch_tokens
            )
        self.tally.add_all({"teacher_divergence": gaps})
        return advantages

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Puts the teacher's weights into the checkpoint, as far as they follow the policy's."""
        if self.teacher is not None:
            checkpoint[TEACHER] = dict(self.teacher.moving)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Gives the teacher its weights back, where training goes on."""
        super().on_load_checkpoint(checkpoint)
        if self.teacher is not None and self._trainer is not None and self._trainer.state.fn == "fit":
            self.teacher.load(checkpoint.get(TEACHER, {}))

    def publish(self) -> None:
        """Log a step's means and maxima over all ranks under "train/"; reward and valid boxes also in the progress bar.

        One exchange a step: ranks may have different metrics, such as those of a third turn. A name that has no
        value in a step keeps its last one in the loggers; `published` holds the step's own.
        """
        self.published = self.tally.over_ranks(self.trainer.world_size)
        self.log("step", float(self.global_step))  # the loggers' axis: optimiser updates, however many a batch makes
        for name, value in self.published.items():
            self.log(f"train/{name}", value, prog_bar=name in ("reward", "valid_box_ratio"), batch_size=1)
        self.tally = Tally()
