"""What can be asked about a picture, wherever its weights are."""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from PIL import Image

from mgpo.answers import LETTERS, choice_letter, given
from mgpo.data.base import BROKEN, Source, broken, question_of
from mgpo.dialogues import Dialogue
from mgpo.errors import UserError
from mgpo.evaluation.greedy import assess
from mgpo.gallery.drawing import look
from mgpo.images.boxes import IN_WORDS
from mgpo.images.decoding import FilePicture, Picture, to_rgb
from mgpo.images.lazy import open_all
from mgpo.images.views import Box, Resize, VisionResolution
from mgpo.metrics.record import Record
from mgpo.rewards import ExactAnswer, Reward
from mgpo.rollout.episodes import Play, judge
from mgpo.rollout.in_process import Sampling
from mgpo.types import Asked, Question, Trajectory, Turn
from mgpo.utils.interface import implementing
from mgpo.utils.least_values import at_least

Samples = Sequence[Asked]
Asking = Image.Image | str | Path  # a picture, or where it lies


@dataclass(frozen=True)
class InMemory:
    """A picture that was handed over as pixels, and has no file."""

    image: Image.Image

    def load(self) -> Image.Image:
        """The picture as it was handed over, not a copy."""
        return self.image


@dataclass(frozen=True)
class Answer:
    """What came of a question. In a notebook it shows itself: the picture, what was seen first, what was cut out."""

    trajectory: Trajectory

    @property
    def answer(self) -> str | None:
        """The final answer, the letter of the option that it picks where there were choices.

        None where the model committed to nothing, or picked none of the choices.
        """
        return picked(self.trajectory.answer, self.trajectory.question.choices)

    @property
    def boxes(self) -> list[Box]:
        """The boxes that were named, usable or not, in pixels of the original that each is in (`pictures`)."""
        return [turn.named for turn in self.trajectory.turns if turn.named is not None]

    @property
    def pictures(self) -> list[int]:
        """The number of the picture that each of `boxes` is in, counted from 1."""
        return [n for turn in self.trajectory.turns if (n := turn.picture) is not None and turn.named is not None]

    @property
    def crops(self) -> list[Image.Image]:
        """The parts that were cut from the originals, as large as they are there."""
        return [view.cut(self.trajectory.original(view)) for view in self.trajectory.crops]

    @property
    def turns(self) -> list[str]:
        """The model's replies as texts, turn by turn."""
        return [turn.text for turn in self.trajectory.turns]

    @property
    def refused(self) -> list[str | None]:
        """By turn, in words, why the box there could not be used; None where it could, or none was looked for."""
        return [refusal(turn) for turn in self.trajectory.turns]

    def __repr__(self) -> str:
        named = [(turn.named, refusal(turn)) for turn in self.trajectory.turns if turn.named is not None]
        boxes = [f"{tuple(round(side) for side in box)}{f' (unusable: {why})' if why else ''}" for box, why in named]
        return f"Answer({self.answer!r}, boxes=[{', '.join(boxes)}])"

    def _repr_png_(self) -> bytes | None:
        return look(self.trajectory)._repr_png_()


def picked(answer: str | None, choices: tuple[str, ...]) -> str | None:
    """An answer as it is handed out; with choices the letter of one of them, or None."""
    return given(answer, choices) if answer is None or not choices else choice_letter(answer, choices)


def refusal(turn: Turn) -> str | None:
    """Why a turn's box could not be used, in words for people."""
    reason = turn.parsed_box.reason if turn.parsed_box is not None else None
    return None if reason is None else IN_WORDS[reason]


class AskedModel(ABC):
    """A model with the dialogue in which it answers.

    Args:
        play: How its episodes are played.
        resolution: How it sees.
        dialogue: What is said in each turn.
        max_new_tokens: A reply is cut here.
    """

    def __init__(
        self, play: Play, resolution: VisionResolution, dialogue: Dialogue, max_new_tokens: int = 1024
    ) -> None:
        self.play, self.resolution, self.max_new_tokens = play, resolution, max_new_tokens
        self.dialogue = implementing(Dialogue, dialogue, "dialogue")

    @abstractmethod
    def identity(self) -> dict[str, Any]:
        """Give, for JSON, what tells this model from another, besides its dialogue."""

    def ask(
        self,
        image: Asking | Sequence[Asking],
        question: str,
        choices: Sequence[str] = (),
        temperature: float = 0.0,
        seed: int = 0,
    ) -> Answer:
        """Ask about a picture or a file, or several; greedy at temperature 0.

        A file is turned upright as its EXIF data say, as for training; a picture in memory is taken as it is.

        Raises UserError where there is none, or one that can't be opened, and for what is no question.
        """
        picture, *others = _pictures(image)
        if not isinstance(question, str) or not question.strip():
            raise UserError(f"a question is a text, not {question!r}")
        choices = choices if isinstance(choices, str | Mapping) else tuple(choices)
        if isinstance(choices, str | Mapping) or not all(isinstance(choice, str) for choice in choices):
            raise UserError(f"choices are a list of texts, such as ['red', 'blue'], not {choices!r}")
        if broken(question, *choices):
            raise UserError(f"the question or a choice {BROKEN}")
        if len(choices) == 1 or len(choices) > len(LETTERS):
            raise UserError(f"{len(choices)} choices; 2 to {len(LETTERS)} can be lettered")
        asked = Question("asked", picture, question, "", choices, others=tuple(others))
        return self.group(asked, 1, temperature, seed)[0]

    def group(self, question: Question, rollouts: int = 8, temperature: float = 1.0, seed: int = 0) -> list[Answer]:
        """Several answers to one question, sampled as in training, and judged where its answer is known.

        Raises UserError where a server fails.
        """
        at_least("to ask", seed=seed, rollouts=rollouts)
        sampling = Sampling(self.max_new_tokens, temperature)
        originals = open_all(question.pictures, self.resolution.full)
        played = self.play(self.dialogue, [(question, *originals)], rollouts, sampling, (seed, 0))
        if failed := [trajectory.failed for trajectory in played if trajectory.failed is not None]:
            raise UserError(failed[0])
        if question.answer:
            judge(played, ExactAnswer())
        return [Answer(trajectory) for trajectory in played]

    def answers(self, samples: Samples) -> list[Trajectory]:
        """One greedy episode for each (question, original image, …), in order."""
        return self.play(self.dialogue, samples, 1, Sampling(self.max_new_tokens, 0.0), (0, 0))

    def evaluate(
        self, source: Source, limit: int | None = None, batch_size: int = 16, reward: Reward = ExactAnswer()
    ) -> list[Record]:
        """Greedy episodes on the first `limit` questions of a source, and of each sub-image alone."""
        at_least("evaluate", limit=limit)
        sampling = Sampling(self.max_new_tokens, 0.0)
        batches = in_batches(source, limit, batch_size, self.resolution.full)
        return [r for b in batches for r in assess(self.play, self.resolution, self.dialogue, b, sampling, reward, 0)]


def _pictures(given: Any) -> list[Picture]:
    """What was handed over to be asked about: one picture, or several. Raises UserError for anything else."""
    one = isinstance(given, Image.Image | str | Path | bytes) or hasattr(given, "__array__")
    images = [given] if one or not isinstance(given, Iterable) else list(given)
    if not images:
        raise UserError("there is no picture to ask about; hand over one at least")
    return [_picture(image) for image in images]


def _picture(image: Any) -> Picture:
    if isinstance(image, Image.Image):
        return InMemory(to_rgb(image))
    if isinstance(image, str | Path):
        return FilePicture(str(image))
    raise UserError(
        f"a picture to ask about is a path or a PIL image, or a list of these, not a {type(image).__name__}; "
        "PIL.Image.fromarray makes one of an array, and PIL.Image.open one of a file's bytes in io.BytesIO"
    )


def in_batches(source: Source, limit: int | None, size: int, whole: Resize) -> Iterator[list[Asked]]:
    """The first `limit` questions of a source with their pictures, which are first seen at the size of `whole`."""
    count = len(source) if limit is None else min(limit, len(source))
    questions = iter([question_of(source, i) for i in range(count)])
    while batch := [(question, *open_all(question.pictures, whole)) for question in islice(questions, size)]:
        yield batch
