"""Rollouts: a dialogue played with a sampler, for every question a group of trajectories."""

import zlib
from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import replace
from typing import Protocol

import numpy as np

from mgpo.dialogues import Dialogue
from mgpo.dialogues.asked import begins_anew, next_of, opening_of, stop_of
from mgpo.images.decoding import BadImage
from mgpo.images.views import VisionResolution
from mgpo.policy.base import Policy
from mgpo.rewards import Reward, verdicts_of
from mgpo.rewards.shaping import Shaping, added
from mgpo.rollout.crops import THREADS, CropCache, Swap, swaps_of
from mgpo.rollout.fitting import in_process, most_of, too_long
from mgpo.rollout.in_process import Sampling
from mgpo.types import Asked, Message, Prompt, Reply, Trajectory, Turn
from mgpo.utils.interface import Interface

Job = Callable[[], list[Trajectory]]  # plays the rollouts of a step
ANSWER_FORM = "\\boxed{{answer}}"  # in which a right answer is forced


class Conversations(Protocol):
    """A batch of open conversations, one a row: `reply`, then `extend` with what is shown next, and so on."""

    def reply(
        self, seeds: Sequence[int], sampling: Sampling, stop_text: str | None = None
    ) -> Iterator[tuple[int, Reply]]:
        """Sample a reply for every row, and give (row, its reply) as each ends."""
        ...

    def take(self, replies: Sequence[Reply]) -> None:
        """Take these replies, a row each, as if they had been sampled."""
        ...

    def extend(self, prompts: Sequence[Prompt]) -> None:
        """Show every row what comes before its next reply."""
        ...

    def keep(self, rows: Sequence[int]) -> None:
        """Go on with these rows alone, in this order."""
        ...

    def begin(self, prompts: Sequence[Prompt], rows: Sequence[int]) -> "Conversations":
        """New conversations, one a prompt, in which nothing of this one is seen; `rows` are those that they go on."""
        ...


class Sampler(Interface):
    """Draws replies from a policy: in process, or an engine that has a copy of its weights.

    One that passes the policy itself although its log-probs are not the trainer's says so with `in_process = True`, as
    all do that derive from InProcessSampler; one that takes conversations of limited length, with `max_model_len`.

    Example:
        Cooler first replies, from the policy itself. In my_samplers.py::

            from collections.abc import Sequence
            from dataclasses import replace

            from mgpo.policy import Policy
            from mgpo.rollout import Conversations, InProcessSampler
            from mgpo.types import Prompt


            class CoolStart(InProcessSampler):
                exact = False  # its log-probs are not the trainer's, which scores its replies anew

                def open(self, policy: Policy, prompts: Sequence[Prompt], copies: int) -> Conversations:
                    conversation = super().open(policy, prompts, copies)
                    usual = conversation.reply

                    def cool(seeds, sampling, stop_text=None):
                        conversation.reply = usual
                        return usual(seeds, replace(sampling, temperature=0.7 * sampling.temperature), stop_text)

                    conversation.reply = cool
                    return conversation

        and on the command line ``--model.sampler my_samplers.CoolStart``.
    """

    exact: bool  # whether its log-probs are the trainer's, but for rounding

    @abstractmethod
    def open(self, policy: Policy, prompts: Sequence[Prompt], copies: int) -> Conversations:
        """Show each prompt to `copies` rows, which lie next to each other, under the policy's weights as they are."""
        ...

    @abstractmethod
    def prepare(self, policy: Policy) -> None:
        """Have the policy's weights as they are. Where they are sharded all ranks must ask; then each may `open`."""
        ...

    @abstractmethod
    def run(self, policy: Policy, job: Job) -> list[Trajectory]:
        """Have a step's rollouts played: these now, or while the policy learns from those of the step before, which are
        then returned."""
        ...

    @abstractmethod
    def release(self) -> None:
        """The policy's weights are about to change, and memory is wanted elsewhere until the next `open`."""
        ...


class Opens(Protocol):
    """What `roll_out` asks of a sampler."""

    exact: bool

    def open(self, policy: Policy, prompts: Sequence[Prompt], copies: int) -> Conversations: ...


class Play(Protocol):
    """Plays `copies` episodes a question, a question's next to each other: `roll_out` in process, or a server."""

    def __call__(
        self,
        dialogue: Dialogue,
        samples: Sequence[Asked],
        copies: int,
        sampling: Sampling,
        key: tuple[int, ...],
        resolution: VisionResolution | None = None,
        swap: Swap | Sequence[Swap | None] | None = None,
        begun: Sequence[Sequence[Turn]] = (),
    ) -> list[Trajectory]: ...


def seed_of(*key: int | str) -> int:
    """A 63-bit seed from (run seed, step, question, rollout, turn …), the same on every machine and rank."""
    words = [zlib.crc32(part.encode()) if isinstance(part, str) else part for part in key]
    return int(np.random.SeedSequence(words).generate_state(1, np.uint64)[0] >> 1)


def roll_out(
    policy: Policy,
    sampler: Opens,
    dialogue: Dialogue,
    samples: Sequence[Asked],
    copies: int,
    sampling: Sampling,
    key: tuple[int, ...],
    resolution: VisionResolution | None = None,
    swap: Swap | Sequence[Swap | None] | None = None,
    begun: Sequence[Sequence[Turn]] = (),
) -> list[Trajectory]:
    """`copies` trajectories for each (question, original image, …), a question's next to each other; not yet judged.

    `key` (run seed, step) makes the draws; the same key gives the same trajectories whatever the batch.
    `resolution` overrides how the policy sees; `swap` shows something else in place of each cut-out part, one for all
    questions or one for each. `begun` holds the first turns of each question's rollouts, equally many: their replies
    are taken as they are, not drawn. Where a crop can't be had, because the file is gone by now, or the conversation
    gets too long for the model, the rollout ends and its `failed` says why. One whose first prompt is too long has no
    turns.
    """
    resolution = resolution or policy.resolution
    firsts = [replace(Trajectory.begin(*sample), frame=resolution.frame) for sample in samples]
    opened = [opening_of(dialogue, first, resolution) for first in firsts]
    trajectories = [replace(first, turns=[], views=list(first.views)) for first in firsts for _ in range(copies)]
    with ThreadPoolExecutor(THREADS) as threads, policy.at_rest() if in_process(sampler) else nullcontext():
        crops = [CropCache(policy, first, own, threads) for first, own in zip(firsts, swaps_of(swap, firsts))]
        for c, messages in zip(crops, opened):
            c.begin(messages)
        prompts = [policy.chat.open(messages, c) for messages, c in zip(opened, crops)]
        for trajectory, prompt in zip(trajectories, (prompt for prompt in prompts for _ in range(copies))):
            trajectory.failed = too_long(policy, (), prompt, sampling.max_new_tokens, most_of(sampler))
        shown = {i: prompts[i // copies] for i, trajectory in enumerate(trajectories) if trajectory.failed is None}
        if not shown:
            return trajectories
        playing = [(list(shown), sampler.open(policy, [shown[i] for i in shown if i % copies == 0], copies))]
        turn = 0
        while playing:
            following: dict[int, Sequence[Message] | None] = {}
            for active, conversation in playing:
                if begun and turn < len(begun[0]):
                    known = [begun[i // copies][turn].reply for i in active]
                    conversation.take(known)
                    replies = enumerate(known)
                else:
                    seeds = [seed_of(*key, trajectories[i].question.id, i % copies, turn) for i in active]
                    replies = conversation.reply(seeds, sampling, stop_of(dialogue, turn))
                for row, reply in replies:
                    i = active[row]
                    text, thinks = policy.chat.decode(reply.ids), bool(policy.chat.closing)
                    trajectories[i].turns.append(Turn(shown[i], reply, text, opened=thinks))
                    following[i] = next_of(dialogue, trajectories[i], resolution)
                    crops[i // copies].begin(following[i])  # while other rows go on
            limits = (sampling.max_new_tokens, most_of(sampler))
            shown = _next_prompts(policy, trajectories, following, crops, copies, *limits)
            playing = [part for active, conversation in playing for part in _go_on(conversation, active, shown)]
            turn += 1
    return trajectories


def _go_on(
    conversation: Conversations, active: Sequence[int], shown: Mapping[int, Prompt]
) -> Iterator[tuple[list[int], Conversations]]:
    """Those of the active trajectories that are shown more, in the conversations in which they go on."""
    staying = [row for row, i in enumerate(active) if i in shown and not shown[i].fresh]
    leaving = [row for row, i in enumerate(active) if i in shown and shown[i].fresh]
    if leaving:
        numbers = [active[row] for row in leaving]
        yield numbers, conversation.begin([shown[i] for i in numbers], leaving)
    if staying:
        numbers = [active[row] for row in staying]
        conversation.keep(staying)
        conversation.extend([shown[i] for i in numbers])
        yield numbers, conversation


def _next_prompts(
    policy: Policy,
    trajectories: Sequence[Trajectory],
    following: Mapping[int, Sequence[Message] | None],
    crops: Sequence[CropCache],
    copies: int,
    reply: int,
    most: int | None,
) -> dict[int, Prompt]:
    """What is shown next, by trajectory, in order, but to those that have ended, whose crop can't be had, or that
    leave no room for `reply` more tokens, of at most `most` that the sampler takes."""
    prompts: dict[int, Prompt] = {}
    for i, messages in sorted(following.items()):
        if messages is None:
            continue
        trajectory = trajectories[i]
        try:
            if begins_anew(messages):
                prompt = policy.chat.open(messages, crops[i // copies])
            else:
                prompt = policy.chat.follow(messages, trajectory.turns[-1].reply, crops[i // copies])
            trajectory.failed = too_long(policy, trajectory.turns, prompt, reply, most)
        except BadImage as error:
            trajectory.failed = str(error)
        if trajectory.failed is None:
            prompts[i] = prompt
    return prompts


def judge(trajectories: Sequence[Trajectory], reward: Reward) -> None:
    """Reward the answers, in place."""
    verdicts = verdicts_of(reward, [(trajectory.answer, trajectory.question) for trajectory in trajectories])
    for trajectory, verdict in zip(trajectories, verdicts, strict=True):
        trajectory.reward, trajectory.right = verdict


def shape_rewards(trajectories: Sequence[Trajectory], shaping: Sequence[Shaping]) -> None:
    """What training adds to the reward of judged trajectories, in place."""
    for trajectory in trajectories:
        trajectory.reward += added(shaping, trajectory)


def force_answers(policy: Policy, trajectories: Sequence[Trajectory], form: str) -> None:
    """Put the right answer, in a `form` with the slot {answer}, in place of each last reply; in place.

    Only that reply is learnt from: what the policy sampled before it was nobody's teaching.
    """
    for trajectory in trajectories:
        *looks, last = trajectory.turns
        for turn in looks:
            turn.learnt = False
        thought = f"\n{policy.chat.closing}\n\n" if last.opened else ""  # that the prompt began
        last.text = thought + form.replace("{answer}", trajectory.question.answer)
        ids = (*policy.chat.encode_text(last.text), policy.chat.end_id)
        last.reply = Reply(ids, (0.0,) * len(ids), "end")
