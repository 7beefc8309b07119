"""The nouns of one training step: Question, Message, Prompt, Reply, Turn, Trajectory."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Literal

import numpy as np
import torch

from mgpo.answers.thoughts import spoken
from mgpo.images.boxes import ParsedBox
from mgpo.images.decoding import Picture
from mgpo.images.views import Box, Frame, Original, View

Role = Literal["system", "user", "assistant"]  # the last for examples of replies, which nobody sampled
Stop = Literal["end", "marker", "length"]  # end-of-turn token sampled, stop text completed, or cut at the limit
# What a reply did, as its dialogue took it: named a part that is shown next; asked for one that is not, whatever the
# reason; committed to an answer; or none of these.
Action = Literal["look", "look refused", "answer", "nothing"]


@dataclass(frozen=True)
class Question:
    """What the policy is asked and what is right. There is no field for a box, and there never will be."""

    id: str
    picture: Picture
    text: str
    answer: str  # the option's letter where there are choices
    choices: tuple[str, ...] = ()
    category: str = ""
    split: str = ""
    part: str = ""  # what a benchmark's score needs besides: HR-Bench's cycle, MME-RealWorld's l2-category
    accepted: tuple[str, ...] = ()  # other answers that are right as well, where there are no choices
    source: str = ""  # the part of a mixture that it came from
    imitated: "SavedRollout | None" = None  # to be learnt word for word; rewards and dialogues never see it
    others: tuple[Picture, ...] = ()  # further pictures, shown behind the first

    @property
    def pictures(self) -> tuple[Picture, ...]:
        """All pictures, in the order in which they are shown."""
        return (self.picture, *self.others)


@dataclass(frozen=True)
class SavedRollout:
    """What the policy sampled in an earlier rollout, turn by turn, and the hash of the prompt that it began with."""

    ids: tuple[tuple[int, ...], ...]
    stops: tuple[Stop, ...]
    prompt_hash: str


@dataclass(frozen=True)
class Message:
    """One side's contribution to the chat: text and views in the order in which they are shown."""

    role: Role
    parts: tuple[str | View, ...]


@dataclass(frozen=True)
class Prompt:
    """What is shown before a reply: token ids with placeholders expanded, and the patches of their images.

    A `fresh` one begins a conversation: nothing that was shown or said before is seen behind it, and positions count
    from 0 again.
    """

    ids: tuple[int, ...]
    images: tuple["Pixels", ...] = ()
    fresh: bool = False

    @property
    def hash(self) -> str:
        """The first 16 hexadecimal digits of SHA-256 over the ids as little-endian 64-bit integers."""
        return sha256(np.asarray(self.ids, "<i8").tobytes()).hexdigest()[:16]


@dataclass(frozen=True, eq=False)
class Pixels:
    """One image as its family's vision tower takes it, and its grid (t, h, w) in patches.

    `patches` is (patches, channels · patch volume) in the Qwen families, (channels, height, width) in Gemma.
    """

    patches: torch.Tensor
    grid: tuple[int, int, int]


@dataclass(frozen=True)
class Reply:
    """What the policy sampled: the ids themselves and their log-probs under the distribution they came from.

    A server that samples tells no ids, and not always log-probs.
    """

    ids: tuple[int, ...]
    logprobs: tuple[float, ...]
    stop: Stop


@dataclass
class Turn:
    """A prompt, the sampled reply, its text (for parsing only, never encoded again) and what was found in it."""

    prompt: Prompt
    reply: Reply
    text: str
    parsed_box: ParsedBox | None = None
    learnt: bool = True  # whether the reply's tokens are in the loss
    scored: tuple[float, ...] | None = None  # the trainer's log-probs of the reply, where they aren't the sampler's own
    seen: View | None = None  # the picture in which the parsed_box's box was named
    action: Action | None = None  # what the dialogue took the reply for; None before it has
    evidence: float | None = None  # by how many nats what it had shown made the right answer likelier, once measured
    opened: bool = False  # whether the prompt ends inside a thought, which the reply then goes on with

    @property
    def said(self) -> str:
        """The reply without its thoughts: where boxes and answers are looked for."""
        return spoken(self.text, self.opened)

    @property
    def picture(self) -> int | None:
        """The number, from 1 on, of the picture in which the box was looked for; None where there was none such."""
        return None if self.seen is None else self.seen.picture + 1

    @property
    def named(self) -> Box | None:
        """The box that was judged, usable or not, in pixels of the original."""
        if self.seen is None or self.parsed_box is None or self.parsed_box.candidate is None:
            return None
        return self.seen.to_original(self.parsed_box.candidate)


def conversations(turns: Sequence[Turn]) -> list[list[Turn]]:
    """A trajectory's turns by conversation, of which each sees itself alone: one, unless the dialogue begins anew."""
    found: list[list[Turn]] = []
    for turn in turns:
        if turn.prompt.fresh or not found:
            found.append([])
        found[-1].append(turn)
    return found


Asked = tuple[Question, *tuple[Original, ...]]  # a question with the originals of its pictures, in order


@dataclass
class Trajectory:
    """One rollout: exactly what was shown and sampled, turn by turn, and how it was judged.

    `views` begin with the pictures as a whole, in order; behind them stands what was shown later.
    """

    question: Question
    image: Original
    turns: list[Turn] = field(default_factory=list)
    views: list[View] = field(default_factory=list)
    answer: str | None = None
    right: bool = False  # by the reward on the answer alone
    reward: float = 0.0  # what training sees: that reward and whatever was added to it
    limited: bool = False  # the turns ran out on a look
    failed: str | None = None  # why it was not played to the end: by a server, or for want of a crop
    others: tuple[Original, ...] = ()  # the originals of the question's further pictures
    frame: Frame = Frame.PIXELS  # in which the policy names places

    @classmethod
    def begin(cls, question: Question, image: Original, *others: Original) -> "Trajectory":
        """A rollout in which nothing has been shown yet, of `Asked`."""
        return cls(question, image, others=others)

    @property
    def originals(self) -> tuple[Original, ...]:
        """The originals of all pictures, in order."""
        return (self.image, *self.others)

    @property
    def asked(self) -> Asked:
        """The question with its pictures, as it is played."""
        return (self.question, *self.originals)

    @property
    def wholes(self) -> list[View]:
        """The pictures as a whole, as they are first seen, in order."""
        return [view for place, view in enumerate(self.views) if view.picture == place]

    def original(self, view: View) -> Original:
        """What a view shows a part of."""
        return self.originals[view.picture]

    def whole(self, view: View) -> View:
        """The first view of the picture that a view shows a part of."""
        return self.views[view.picture]

    @property
    def parsed_box(self) -> ParsedBox | None:
        """The first box the policy named, or why there is none; None where the dialogue asks for no box."""
        return next((turn.parsed_box for turn in self.turns if turn.parsed_box is not None), None)

    @property
    def cut(self) -> bool:
        """Whether any reply ran into the token limit."""
        return any(turn.reply.stop == "length" for turn in self.turns)

    @property
    def learnt_tokens(self) -> int:
        """Sampled tokens that count in the loss."""
        return sum(len(turn.reply.ids) for turn in self.turns if turn.learnt)

    @property
    def unfinished(self) -> bool:
        """Whether a limit, of tokens or of turns, kept the policy from answering in its last reply."""
        return self.limited or (self.answer is None and bool(self.turns) and self.turns[-1].reply.stop == "length")

    @property
    def crops(self) -> list[View]:
        """The parts that were cut out and shown, in order; one that is shown again for want of another counts once."""
        wholes = {id(view) for view in self.wholes}
        return [
            view for view, before in zip(self.views[1:], self.views) if view is not before and id(view) not in wholes
        ]
