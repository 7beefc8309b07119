"""Rollouts: a dialogue played with a sampler, for every question a group of trajectories."""

import zlib
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from PIL import Image

from mgpo.dialogues import Dialogue
from mgpo.policy.base import Policy
from mgpo.sampler import InProcessSampler, Sampling
from mgpo.types import Pixels, Question, Trajectory, Turn
from mgpo.views import Sight, View


def seed_of(*key: int | str) -> int:
    """A 63-bit seed from (run seed, step, question, rollout, turn …), the same on every machine and rank."""
    words = [zlib.crc32(part.encode()) if isinstance(part, str) else part for part in key]
    return int(np.random.SeedSequence(words).generate_state(1, np.uint64)[0] >> 1)


def roll_out(
    policy: Policy,
    sampler: InProcessSampler,
    dialogue: Dialogue,
    samples: Sequence[tuple[Question, Image.Image]],
    copies: int,
    sampling: Sampling,
    key: tuple[int, ...],
    sight: Sight | None = None,
) -> list[Trajectory]:
    """`copies` trajectories for each (question, original image), a question's next to each other; not yet rewarded.

    `key` (run seed, step) makes the draws; the same key gives the same trajectories whatever the batch.
    `sight` overrides how the policy sees.
    """
    sight = sight or policy.sight
    firsts = [Trajectory(question, image) for question, image in samples]
    crops = [_Crops(policy, first) for first in firsts]
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

    def __init__(self, policy: Policy, trajectory: Trajectory) -> None:
        self.policy, self.image = policy, trajectory.image
        self.known: dict[View, Pixels] = {}

    def __call__(self, view: View) -> Pixels:
        if view not in self.known:
            self.known[view] = self.policy.pixels(self.image, view)
        return self.known[view]
