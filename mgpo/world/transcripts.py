"""Transcripts for pretraining: the dialogues of the package, with a teacher's replies.

Only pretraining reads where the marks are. The stage that this package is about never does.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import IterableDataset

from mgpo.answers import LETTERS as OPTIONS
from mgpo.dialogues import Dialogue, SingleTurn, TwoTurn, answer_only
from mgpo.policy.batch import Batch, collate
from mgpo.policy.qwen2_5_vl import Qwen25VL
from mgpo.types import Pixels, Prompt, Question, Reply, Trajectory, Turn
from mgpo.views import Sight, View
from mgpo.world.questions import ScenePicture, ask
from mgpo.world.scenes import COLOURS, DOTS, TRAIN, Mark, Style, sample_scene
from mgpo.world.tokenizer import ANSWER_REPLY, BOTH_REPLY, BOX_REPLY
from mgpo.world.tower import BINS, CONTENTS

GRID = 4  # the teacher's boxes lie on multiples of this many input pixels
ANSWERED = 0.7  # the share of transcripts that go on to the second turn
HALF = 16  # half the side of the box around one mark, in input pixels


@dataclass(frozen=True)
class Habits:
    """How the teacher names boxes, as shares of its first replies; what is left over is a good box.

    A tight box is centred and too small, an inverted one has its corners swapped, an outer one leaves
    the picture, and a wild one lies anywhere.
    """

    tight: float = 0.0
    inverted: float = 0.0
    outer: float = 0.0
    wild: float = 0.0


def teacher_box(marks: tuple[Mark, ...], side: int, habit: str, rng: np.random.Generator) -> tuple[int, int, int, int]:
    """A box in pixels of the `side` × `side` view, on the grid."""
    xs, ys = [m.x * side for m in marks], [m.y * side for m in marks]
    half = 8 - 3 * (len(marks) - 1) if habit == "tight" else HALF - 5 * (len(marks) - 1)
    if habit == "wild":
        xs, ys = [rng.uniform(0, side)], [rng.uniform(0, side)]
    (x1, x2), (y1, y2) = (_snap_span(min(v) - half, max(v) + half, habit == "tight") for v in (xs, ys))
    if habit == "outer":
        shift = side - GRID * int(rng.integers(1, 5))
        return (max(0, x1), max(0, y1 + shift), max(0, x2), max(0, y2 + shift))
    # Move the box inside the picture, keeping its size.
    dx, dy = (max(0, -low) - max(0, high - side) for low, high in ((x1, x2), (y1, y2)))
    x1, y1, x2, y2 = x1 + dx, y1 + dy, x2 + dx, y2 + dy
    return (x2, y2, x1, y1) if habit == "inverted" else (x1, y1, x2, y2)


def _snap_span(low: float, high: float, tight: bool) -> tuple[int, int]:
    """A span on the grid, widened to the usual side where it is shorter, unless it is meant to be tight."""
    short = 0 if tight else max(0.0, 2 * HALF - (high - low))
    first = round((low - short / 2) / GRID)
    return GRID * first, GRID * (first + round((high - low + short) / GRID))


class Transcripts(IterableDataset):
    """A stream of `steps` batches of transcripts, several about each scene, which share its prompt's head.

    Args:
        policy: A loaded policy; its tokenizer and patcher are used, not its weights.
        scenes: Scenes a batch.
        side: Pixels of a scene's side; smaller than in training, which makes drawing cheap.
        habits: How the teacher names boxes.
    """

    def __init__(
        self, policy: Qwen25VL, steps: int, scenes: int, side: int, habits: Habits, seed: int,
        style: Style = TRAIN,
    ) -> None:  # fmt: skip
        self.chat, self.sight, self.patcher = policy.chat, policy.sight, policy.patcher
        self.positions, self.pad_id = policy.positions, policy.pad_id
        self.steps, self.scenes, self.side = steps, scenes, side
        self.habits, self.seed, self.style = habits, seed, style
        self.colours = {self.chat.encode_text(colour)[0]: colour for colour in COLOURS}
        self.capitals = {self.chat.encode_text(letter)[0]: letter for letter in OPTIONS}
        self.two_turn, self.single_turn, self.alone = TwoTurn(), SingleTurn(), answer_only()

    def __iter__(self) -> Iterator[tuple[Batch, Tensor]]:
        torch.set_num_threads(1)
        rng = np.random.default_rng(self.seed)
        for _ in range(self.steps):
            trajectories = [t for _ in range(self.scenes) for t in self.about_scene(rng)]
            batch = collate(trajectories, self.positions, self.pad_id)
            yield batch, self.label_prompts(batch, trajectories)

    def label_prompts(self, batch: Batch, trajectories: list[Trajectory]) -> Tensor:
        """(N, C, 4) of x bin, y bin, content and choice at tokens of the questions, -100 where unknown.

        A colour has a place where the last picture shown is the whole scene, and a content where it is
        a crop. There, the choice is 1 at the option, or at the colour of the two, that the answer
        begins with, and 0 at the others.
        """
        labels = torch.full((*batch.ids_NC.shape, 4), -100)
        shown = ~batch.policy_NC & batch.valid_NC
        for row, trajectory in enumerate(trajectories):
            ids = batch.ids_NC[row].tolist()
            names = [i for i in shown[row].nonzero().flatten().tolist() if ids[i] in self.colours]
            capitals = [i for i in shown[row].nonzero().flatten().tolist() if ids[i] in self.capitals]
            scene = trajectory.question.picture.scene  # pyright: ignore[reportAttributeAccessIssue]
            marks = {i: scene.mark(self.colours[ids[i]]) for i in names}
            for i, mark in marks.items():
                if trajectory.image.width == self.side and int(batch.turn_NC[row, i]) < 2:
                    labels[row, i, 0], labels[row, i, 1] = int(mark.x * BINS), int(mark.y * BINS)
                elif self._readable(trajectory, mark):
                    labels[row, i, 2] = CONTENTS.index(mark.bears)
                    if len({m.colour for m in marks.values()}) > 1:
                        labels[row, i, 3] = int(mark.x == min(m.x for m in marks.values()))
            for i in capitals[1::2]:  # a lettered list: option, text, option, text …
                if labels[row, names[-1], 2] >= 0:
                    labels[row, i, 3] = int(self.capitals[ids[i]] == marks[names[-1]].bears)
        return labels

    def _readable(self, trajectory: Trajectory, mark: Mark) -> bool:
        """Whether the last view is a crop that holds the mark's centre."""
        if trajectory.image.width < self.side:
            return True
        x1, y1, x2, y2 = (v / self.side for v in trajectory.views[-1].region)
        return x2 - x1 < 0.9 and x1 < mark.x < x2 and y1 < mark.y < y2

    def about_scene(self, rng: np.random.Generator) -> list[Trajectory]:
        """Transcripts about one new scene."""
        pair = rng.random() < 0.5
        scene = sample_scene(rng, self.style, pair)
        picture = ScenePicture(scene, self.side)
        image = picture.load()
        first = View.whole(image.size, self.sight.whole)
        pixels = self.patcher(first.pixels(image))
        asked: list[tuple[str, tuple[Mark, ...]]] = [(self._kind(mark, rng), (mark,)) for mark in scene.marks]
        if pair:
            asked += [("relative_position", scene.marks[:2])] * 2
        head: Prompt | None = None
        made = []
        for kind, marks in asked:
            text, answer, choices = ask(kind, marks, rng)
            question = Question("", picture, text, answer, choices)
            habit = self._habit(rng)
            box = teacher_box(marks, first.size[0], habit, rng)
            label = marks[0].colour
            if rng.random() < 0.12:
                replies, dialogue = [BOTH_REPLY.format(*box, label, answer)], self.single_turn
            else:
                replies, dialogue = [BOX_REPLY.format(*box, label), ANSWER_REPLY.format(answer)], self.two_turn
                replies = replies[: 1 + (rng.random() < ANSWERED)]
            trajectory = self.act(Trajectory(question, image), dialogue, replies, {first: pixels}, self.sight)
            head = self._share_head(trajectory, head)
            made.append(trajectory)
        kind, marks = asked[rng.integers(len(asked))]
        made.append(self._read_alone(kind, marks, picture, image, first, rng))
        return made

    def act(
        self, trajectory: Trajectory, dialogue: Dialogue, replies: list[str], known: dict[View, Pixels], sight: Sight
    ) -> Trajectory:
        """Play a dialogue with given replies."""

        def pixels(view: View) -> Pixels:
            return known[view] if view in known else self.patcher(view.pixels(trajectory.image))

        prompt = self.chat.open(dialogue.open(trajectory, sight), pixels)
        for text in replies:
            ids = (*self.chat.encode_text(text), self.chat.end_id)
            trajectory.turns.append(Turn(prompt, Reply(ids, (0.0,) * len(ids), "end"), text))
            if len(trajectory.turns) < len(replies):
                messages = dialogue.proceed(trajectory, sight)
                assert messages is not None
                prompt = self.chat.follow(messages, trajectory.turns[-1].reply, pixels)
        return trajectory

    def _read_alone(
        self, kind: str, marks: tuple[Mark, ...], picture: ScenePicture, image, first: View, rng: np.random.Generator  # noqa: ANN001
    ) -> Trajectory:  # fmt: skip
        """The right crop as the only picture."""
        text, answer, choices = ask(kind, marks, rng)
        box = teacher_box(marks, first.size[0], "good", rng)
        region = first.crop(box, self.sight.crop).region
        question = Question("", picture, text, answer, choices)
        sight = replace(self.sight, whole=self.sight.crop)
        return self.act(Trajectory(question, image.crop(region)), self.alone, [ANSWER_REPLY.format(answer)], {}, sight)

    def _kind(self, mark: Mark, rng: np.random.Generator) -> str:
        if mark.bears in DOTS:
            return "counting"
        return "attribute" if rng.random() < 0.6 else "attribute_choice"

    def _habit(self, rng: np.random.Generator) -> str:
        draw = rng.random()
        for name, share in vars(self.habits).items():
            draw -= share
            if draw < 0:
                return name
        return "good"

    def _share_head(self, trajectory: Trajectory, head: Prompt | None) -> Prompt:
        """Cut the first prompt behind its image, so that all transcripts about a scene have one prefix."""
        prompt = trajectory.turns[0].prompt
        cut = len(prompt.ids) - prompt.ids[::-1].index(self.chat.image_id) + 1
        head = head or Prompt(prompt.ids[:cut], prompt.images)
        tail = replace(trajectory.turns[0], prompt=Prompt(prompt.ids[cut:]))
        trajectory.turns[:1] = [Turn(head, Reply((), (), "end"), ""), tail]
        return head


def reply_weights(batch: Batch, atoms: Tensor) -> Tensor:
    """(N, C): the weight of each reply token in the loss; what the model has to choose counts, the form less."""
    return batch.policy_NC * torch.where(atoms[batch.ids_NC], 1.0, 0.2)
