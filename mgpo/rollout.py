"""Rollouts: a dialogue played with a sampler, for every question a group of trajectories."""

import zlib
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Protocol

import numpy as np
from PIL import Image

from mgpo.dialogues import Dialogue
from mgpo.extras import Extra
from mgpo.policy.base import Policy
from mgpo.rewards import Reward
from mgpo.sampler import Sampling
from mgpo.types import Pixels, Prompt, Question, Reply, Trajectory, Turn
from mgpo.views import Sight, View

# (original, view of a cut-out part, first view) -> what is shown instead, at the size at which the model sees it
Swap = Callable[[Image.Image, View, View], Image.Image]


Job = Callable[[], list[Trajectory]]  # plays the rollouts of a step


class Conversations(Protocol):
    """A batch of open conversations, one a row: `reply`, then `extend` with what is shown next, and so on."""

    def reply(self, seeds: Sequence[int], sampling: Sampling, stop_text: str | None = None) -> list[Reply]: ...

    def extend(self, prompts: Sequence[Prompt]) -> None: ...

    def keep(self, rows: Sequence[int]) -> None: ...


class Sampler(Protocol):
    """Draws replies from a policy: in process, or an engine that has a copy of its weights."""

    exact: bool  # whether its log-probs are the trainer's, but for rounding

    def open(self, policy: Policy, prompts: Sequence[Prompt], copies: int) -> Conversations:
        """Show each prompt to `copies` rows, which lie next to each other, under the policy's weights as they are."""
        ...

    def run(self, policy: Policy, job: Job) -> list[Trajectory]:
        """Have a step's rollouts played: these now, or while the policy learns from those of the step before, which are
        then returned."""
        ...

    def release(self) -> None:
        """The policy's weights are about to change, and memory is wanted elsewhere until the next `open`."""
        ...


class Play(Protocol):
    """Plays `copies` episodes a question, a question's next to each other: `roll_out` in process, or a server."""

    def __call__(
        self,
        dialogue: Dialogue,
        samples: Sequence[tuple[Question, Image.Image]],
        copies: int,
        sampling: Sampling,
        key: tuple[int, ...],
        sight: Sight | None = None,
    ) -> list[Trajectory]: ...


def seed_of(*key: int | str) -> int:
    """A 63-bit seed from (run seed, step, question, rollout, turn …), the same on every machine and rank."""
    words = [zlib.crc32(part.encode()) if isinstance(part, str) else part for part in key]
    return int(np.random.SeedSequence(words).generate_state(1, np.uint64)[0] >> 1)


def roll_out(
    policy: Policy,
    sampler: Sampler,
    dialogue: Dialogue,
    samples: Sequence[tuple[Question, Image.Image]],
    copies: int,
    sampling: Sampling,
    key: tuple[int, ...],
    sight: Sight | None = None,
    swap: Swap | None = None,
) -> list[Trajectory]:
    """`copies` trajectories for each (question, original image), a question's next to each other; not yet judged.

    `key` (run seed, step) makes the draws; the same key gives the same trajectories whatever the batch.
    `sight` overrides how the policy sees; `swap` shows something else in place of each cut-out part.
    """
    sight = sight or policy.sight
    firsts = [Trajectory(question, image) for question, image in samples]
    crops = [_Crops(policy, first, swap) for first in firsts]
    prompts = [policy.chat.open(dialogue.open(first, sight), c) for first, c in zip(firsts, crops)]
    trajectories = [replace(first, turns=[], views=list(first.views)) for first in firsts for _ in range(copies)]
    shown = [prompt for prompt in prompts for _ in range(copies)]
    conversation = sampler.open(policy, prompts, copies)
    active = list(range(len(trajectories)))
    turn = 0
    while active:
        seeds = [seed_of(*key, trajectories[i].question.id, i % copies, turn) for i in active]
        replies = conversation.reply(seeds, sampling, dialogue.stop_text(turn))
        going, prompts = [], []
        for row, (i, reply) in enumerate(zip(active, replies)):
            trajectory = trajectories[i]
            trajectory.turns.append(Turn(shown[i], reply, policy.chat.decode(reply.ids)))
            messages = dialogue.proceed(trajectory, sight)
            if messages is not None:
                shown[i] = policy.chat.follow(messages, reply, crops[i // copies])
                going.append(row)
                prompts.append(shown[i])
        active = [active[row] for row in going]
        if active:
            conversation.keep(going)
            conversation.extend(prompts)
        turn += 1
    return trajectories


class _Crops:
    """The pixels of a question's views, each cut once for the whole group."""

    def __init__(self, policy: Policy, trajectory: Trajectory, swap: Swap | None) -> None:
        self.policy, self.trajectory, self.swap = policy, trajectory, swap
        self.known: dict[View, Pixels] = {}

    def __call__(self, view: View) -> Pixels:
        if view not in self.known:
            self.known[view] = self.policy.pixels(self._shown(view))
        return self.known[view]

    def _shown(self, view: View) -> Image.Image:
        image, first = self.trajectory.image, self.trajectory.views[0]
        if self.swap is None or view == first:
            return view.pixels(image)
        return self.swap(image, view, first)


def judge(trajectories: Sequence[Trajectory], reward: Reward) -> None:
    """Reward the answers, in place."""
    for trajectory in trajectories:
        trajectory.reward = reward(trajectory.answer, trajectory.question)
        trajectory.right = trajectory.reward > 0


def add_extras(trajectories: Sequence[Trajectory], extras: Sequence[Extra]) -> None:
    """What training adds to the reward of judged trajectories, in place."""
    for trajectory in trajectories:
        trajectory.reward += sum(extra(trajectory) for extra in extras)


def force_answers(policy: Policy, trajectories: Sequence[Trajectory], form: str) -> None:
    """Put the right answer, in a `form` with the slot {answer}, in place of each last reply; in place.

    Only that reply is learnt from: what the policy sampled before it was nobody's teaching.
    """
    for trajectory in trajectories:
        *looks, last = trajectory.turns
        for turn in looks:
            turn.learnt = False
        last.text = form.replace("{answer}", trajectory.question.answer)
        ids = (*policy.chat.encode_text(last.text), policy.chat.end_id)
        last.reply = Reply(ids, (0.0,) * len(ids), "end")
