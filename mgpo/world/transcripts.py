"""Transcripts for pretraining: the dialogues of the package, with a teacher's replies.

Only pretraining reads where the marks are. The stage that this package is about never does.
"""

from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import IterableDataset

from mgpo.answers import LETTERS as OPTIONS
from mgpo.dialogues import Dialogue, FreeTurns, SingleTurn, TwoTurn, answer_only
from mgpo.images.views import View, VisionResolution
from mgpo.policy.families.qwen2_5_vl import Qwen25VL
from mgpo.policy.passes.batch import Batch, collate
from mgpo.types import Pixels, Prompt, Question, Reply, Trajectory, Turn
from mgpo.world.handwriting import DIGITS
from mgpo.world.questions import ScenePicture, ask, style_of
from mgpo.world.scenes import COLOURS, DOTS, Mark, sample_scene
from mgpo.world.teacher import Habits, is_large, teacher_box
from mgpo.world.tokenizer import ANSWER_REPLY, BOX_REPLY
from mgpo.world.tower import BINS, contents

ANSWERED = 0.7  # the share of transcripts that go on behind the last look
SHARES = {"single": 0.14, "again": 0.08, "free": 0.30}  # of dialogues; what is left over is the two-turn one
LARGE_SCENES = 0.35
LOW_CAPS = 0.25  # the share of scenes shown at the size of a crop, as under a lower pixel cap
LEGIBLE = 11  # radius in view pixels from which what a mark bears can be read


class Transcripts(IterableDataset):
    """A stream of `steps` batches of transcripts, several about each scene, which share its prompt's head.

    Args:
        policy: A loaded policy; its tokenizer and patcher are used, not its weights.
        scenes: Scenes a batch.
        side: Pixels of a scene's side; smaller than in training, which makes drawing cheap.
        habits: How the teacher names boxes.
        handwritten: Scenes with handwritten digits, which are options' texts as capitals are.
    """

    def __init__(
        self,
        policy: Qwen25VL,
        steps: int,
        scenes: int,
        side: int,
        habits: Habits,
        seed: int,
        handwritten: bool = False,
    ) -> None:
        self.chat, self.patcher = policy.chat, policy.patcher
        self.resolution = policy.resolution
        self.low_resolution = replace(policy.resolution, full=policy.resolution.crop)
        self.positions, self.pad_id = policy.positions, policy.pad_id
        self.steps, self.scenes, self.side = steps, scenes, side
        self.habits, self.seed = habits, seed
        self.colours = {self.chat.encode_text(colour)[0]: colour for colour in COLOURS}
        named = OPTIONS + (DIGITS if handwritten else "")
        self.named = {self.chat.encode_text(text)[0]: text for text in named}  # options, and what they may say
        self.contents = contents(handwritten)
        self.style, self.large = (style_of("train", size, handwritten) for size in ("small", "large"))

    def __iter__(self) -> Iterator[tuple[Batch, Tensor]]:
        torch.set_num_threads(1)
        rng = np.random.default_rng(self.seed)
        for _ in range(self.steps):
            trajectories = [t for _ in range(self.scenes) for t in self.about_scene(rng)]
            batch = collate(trajectories, self.positions, self.pad_id)
            yield batch, self.label_prompts(batch, trajectories)

    def label_prompts(self, batch: Batch, trajectories: list[Trajectory]) -> Tensor:
        """The labels (N, C, 4) of the questions' tokens: x bin, y bin, content and choice; -100 where unknown.

        A colour has a place where the last picture shown is the whole scene, and a content where it can
        be read in that picture. There, the choice is 1 at the option, or at the colour of the two, that
        the answer begins with, and 0 at the others.
        """
        labels = torch.full((*batch.ids_NC.shape, 4), -100)
        shown = ~batch.policy_NC & batch.valid_NC
        for row, trajectory in enumerate(trajectories):
            ids = batch.ids_NC[row].tolist()
            names = [i for i in shown[row].nonzero().flatten().tolist() if ids[i] in self.colours]
            named = [i for i in shown[row].nonzero().flatten().tolist() if ids[i] in self.named]
            scene = trajectory.question.picture.scene  # pyright: ignore[reportAttributeAccessIssue]
            marks = {i: scene.mark(self.colours[ids[i]]) for i in names}
            colours = {mark.colour for mark in marks.values()}
            for i, mark in marks.items():
                turn = max(1, int(batch.turn_NC[row, i]))
                view = trajectory.views[min(turn, len(trajectory.views)) - 1]
                if trajectory.image.size[0] == self.side and view is trajectory.views[0]:
                    labels[row, i, 0], labels[row, i, 1] = int(mark.x * BINS), int(mark.y * BINS)
                if trajectory.image.size[0] < self.side or self._legible(view, mark):
                    labels[row, i, 2] = self.contents.index(mark.bears)
                    if len(colours) > 1:
                        labels[row, i, 3] = int(mark.x == min(m.x for m in marks.values()))
            for option, text in pairwise(named):
                if self.chat.decode(ids[option + 1 : text]) != ") ":  # "(A) K": an option and its text
                    continue
                name = max(i for i in names if i < option)
                if labels[row, name, 2] >= 0:
                    labels[row, text, 3] = int(self.named[ids[text]] == marks[name].bears)
        return labels

    def _legible(self, view: View, mark: Mark) -> bool:
        """Whether a view shows what a mark bears, large enough to be read."""
        x1, y1, x2, y2 = (v / self.side for v in view.region)
        inside = x1 < mark.x - mark.ink / 2 and mark.x + mark.ink / 2 < x2
        inside &= y1 < mark.y - mark.ink / 2 and mark.y + mark.ink / 2 < y2
        return inside and mark.radius * view.size[0] / (x2 - x1) >= LEGIBLE

    def about_scene(self, rng: np.random.Generator) -> list[Trajectory]:
        """Transcripts about one new scene, a question for each mark or more, which share their first prompt."""
        pair = rng.random() < 0.5
        scene = sample_scene(rng, self.large if rng.random() < LARGE_SCENES else self.style, pair)
        resolution = self.low_resolution if rng.random() < LOW_CAPS else self.resolution
        picture = ScenePicture(scene, self.side)
        image = picture.load()
        first = View.full(image.size, resolution.full)
        pixels = self.patcher(first.pixels(image))
        asked: list[tuple[str, tuple[Mark, ...]]] = [(self._kind(mark, rng), (mark,)) for mark in scene.marks]
        if pair:
            asked += [("relative_position", scene.marks[:2])] * 2
        head: Prompt | None = None
        made = []
        for kind, marks in asked:
            text, answer, choices = ask(kind, marks, rng)
            dialogue, replies = self._script(marks, answer, first.size[0], rng)
            trajectory = Trajectory(Question("", picture, text, answer, choices), image)
            self.act(trajectory, dialogue, replies, {first: pixels}, resolution)
            head = self._share_head(trajectory, head)
            made.append(trajectory)
        kind, marks = asked[rng.integers(len(asked))]
        made.append(self._read_alone(kind, marks, picture, image, first, rng))
        return made

    def _script(
        self, marks: tuple[Mark, ...], answer: str, side: int, rng: np.random.Generator
    ) -> tuple[Dialogue, list[str]]:
        """A dialogue and what the teacher says in it. In free turns it looks or not by chance, whatever the scene."""
        name = marks[0].colour

        def box() -> str:
            return BOX_REPLY.format(*teacher_box(marks, side, self.habits.draw(rng), rng), name)

        final = ANSWER_REPLY.format(answer)
        number = rng.random()
        if number < SHARES["single"]:
            return SingleTurn(), [box() + "\n" + final]
        ends = rng.random() >= ANSWERED
        if number < SHARES["single"] + SHARES["free"]:
            turns = int(rng.integers(2, 5))
            looks = min(turns - 1, int(rng.choice(3, p=[0.4, 0.45, 0.15])))
            said = [*(box() for _ in range(looks)), final]
            return FreeTurns(turns), said[:-1] if ends and looks else said
        looks = 2 if number < sum(SHARES.values()) else 1
        said = [*(box() for _ in range(looks)), final]
        return TwoTurn(turns=looks + 1), said[:-1] if ends else said

    def act(
        self,
        trajectory: Trajectory,
        dialogue: Dialogue,
        replies: list[str],
        known: dict[View, Pixels],
        resolution: VisionResolution,
    ) -> Trajectory:
        """Play a dialogue with given replies, and give the trajectory with prompts and replies as ids."""

        def pixels(view: View) -> Pixels:
            return known[view] if view in known else self.patcher(view.pixels(trajectory.image))

        prompt = self.chat.open(dialogue.open(trajectory, resolution), pixels)
        for text in replies:
            ids = (*self.chat.encode_text(text), self.chat.end_id)
            trajectory.turns.append(Turn(prompt, Reply(ids, (0.0,) * len(ids), "end"), text))
            if len(trajectory.turns) < len(replies):
                messages = dialogue.proceed(trajectory, resolution)
                assert messages is not None
                prompt = self.chat.follow(messages, trajectory.turns[-1].reply, pixels)
        return trajectory

    def _read_alone(
        self, kind: str, marks: tuple[Mark, ...], picture: ScenePicture, image, first: View, rng: np.random.Generator  # noqa: ANN001
    ) -> Trajectory:  # fmt: skip
        """The right crop as the only picture, or a whole one whose marks are large."""
        text, answer, choices = ask(kind, marks, rng)
        question = Question("", picture, text, answer, choices)
        if is_large(marks[0]) and rng.random() < 0.6:
            return self.act(
                Trajectory(question, image), answer_only(), [ANSWER_REPLY.format(answer)], {}, self.resolution
            )
        box = teacher_box(marks, first.size[0], "good", rng)
        region = first.crop(box, self.resolution.crop).region
        resolution = replace(self.resolution, full=self.resolution.crop)
        return self.act(
            Trajectory(question, image.crop(region)), answer_only(), [ANSWER_REPLY.format(answer)], {}, resolution
        )

    def _kind(self, mark: Mark, rng: np.random.Generator) -> str:
        if mark.image is None and mark.bears in DOTS:
            return "counting"
        return "attribute" if rng.random() < 0.5 else "attribute_choice"

    def _share_head(self, trajectory: Trajectory, head: Prompt | None) -> Prompt:
        """Cut the first prompt behind its image, so that all transcripts about a scene have one prefix."""
        prompt = trajectory.turns[0].prompt
        cut = len(prompt.ids) - prompt.ids[::-1].index(self.chat.image_id) + 1
        head = head or Prompt(prompt.ids[:cut], prompt.images)
        tail = replace(trajectory.turns[0], prompt=Prompt(prompt.ids[cut:]))
        trajectory.turns[:1] = [Turn(head, Reply((), (), "end"), ""), tail]
        return head


def reply_weights(batch: Batch, atoms: Tensor) -> Tensor:
    """The weight of each token in the loss, (N, C): 1 for a choice of the model, 0.2 for form, 0 for what is shown."""
    return batch.policy_NC * torch.where(atoms[batch.ids_NC], 1.0, 0.2)
