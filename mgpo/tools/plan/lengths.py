"""How long a dialogue gets: its real texts under the checkpoint's tokenizer, around pictures of a given size."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from math import ceil
from pathlib import Path

from PIL import Image
from transformers import AutoTokenizer

from mgpo.dialogues import Dialogue
from mgpo.dialogues.asked import begins_anew, next_of, opening_of
from mgpo.images.decoding import FilePicture
from mgpo.images.views import Frame, View, VisionResolution
from mgpo.types import Message, Prompt, Question, Reply, Trajectory, Turn

# Stands for the questions that will be asked, which plan does not read.
QUESTION = Question(
    "typical",
    FilePicture(""),
    "What is written on the small sign to the left of the entrance of the white building in the background?",
    "A",
    (
        "The name of a street",
        "The opening hours of a shop",
        "A telephone number",
        "The name of a hotel",
        "None of these",
    ),
)
BOX = '```json\n[{"bbox_2d": [64, 64, 320, 320], "label": "the sign"}]\n```'
CHARACTERS = 4  # of a token, where there is no tokenizer to ask
MESSAGE, OPENING, PICTURE, CLOSING = 5, 3, 2, 2  # ChatML's own tokens: a message, the reply's start, an image, its end
SEEN = (640, 640)  # any size at which BOX is valid


@dataclass(frozen=True)
class Said:
    """What is shown before one reply: tokens of text, pictures at the cap of whole ones and at that of crops, and
    whether a conversation begins anew, in which nothing before is seen."""

    text: int
    wholes: int = 0
    crops: int = 0
    fresh: bool = False


def counter(path: str) -> Callable[[str], int]:
    """How many tokens a text has: by the tokenizer of a local checkpoint, else a token for four characters."""
    if not (Path(path) / "tokenizer.json").is_file():
        return lambda text: ceil(len(text) / CHARACTERS)
    tokenizer = AutoTokenizer.from_pretrained(path)
    return lambda text: len(tokenizer.encode(text, add_special_tokens=False))


def converse(dialogue: Dialogue, count: Callable[[str], int], pictures: int = 1) -> tuple[Said, ...]:
    """Play the dialogue with a usable box in every reply and with none at all; of each turn the longer one counts."""
    played = [_play(dialogue, count, pictures, reply) for reply in (BOX, "")]
    longest, other = sorted(played, key=len, reverse=True)
    rest = [*other, *longest[len(other) :]]
    return tuple(max(pair, key=lambda said: (said.wholes, said.crops, said.text)) for pair in zip(longest, rest))


def look(dialogue: Dialogue, count: Callable[[str], int], pictures: int = 1) -> tuple[Said, ...]:
    """Play the dialogue with a usable box in every reply."""
    return tuple(_play(dialogue, count, pictures, BOX))


def _play(dialogue: Dialogue, count: Callable[[str], int], pictures: int, reply: str) -> list[Said]:
    resolution = VisionResolution(Frame.PIXELS, lambda size: SEEN, lambda size: SEEN)
    first, *others = [Image.new("1", (2048, 2048)) for _ in range(pictures)]
    asked = replace(QUESTION, others=(QUESTION.picture,) * len(others))
    trajectory = Trajectory(asked, first, others=tuple(others))
    opened = _said(opening_of(dialogue, trajectory, resolution), count, trajectory.wholes)
    turns = [replace(opened, fresh=False)]
    while True:
        trajectory.turns.append(Turn(Prompt(()), Reply((), (), "marker"), reply))
        messages = next_of(dialogue, trajectory, resolution)
        if messages is None:
            return turns
        said = _said(messages, count, trajectory.wholes)
        turns.append(said if said.fresh else replace(said, text=said.text + CLOSING))


def _said(messages: Sequence[Message], count: Callable[[str], int], firsts: Sequence[View]) -> Said:
    """Text and pictures of some messages; those that are first views are whole."""
    parts = [part for message in messages for part in message.parts]
    views = [part for part in parts if isinstance(part, View)]
    wholes = sum(any(view is first for first in firsts) for view in views)
    text = sum(count(part) for part in parts if isinstance(part, str))
    text += MESSAGE * len(messages) + OPENING + PICTURE * len(views)
    return Said(text, wholes, len(views) - wholes, begins_anew(messages))
