"""What every dialogue shares: its interface, and how texts with slots become messages."""

import re
from typing import Protocol

from mgpo.answers import LETTERS
from mgpo.types import Message, Question, Trajectory
from mgpo.views import Sight, View

_SLOT = re.compile(r"(\{(?:image|question|choices|reason|looks)\})")


class Dialogue(Protocol):
    """What is said in each turn, and when the episode ends. Knows texts and views, not engines.

    A dialogue holds no state: everything that has happened stands in the trajectory.
    """

    def stop_text(self, turn: int) -> str | None:
        """The text that ends the policy's reply in a turn (counted from 0), besides its end-of-turn token."""
        ...

    def open(self, trajectory: Trajectory, sight: Sight) -> list[Message]:
        """The messages before the first reply; the views they show are appended to `trajectory.views`."""
        ...

    def proceed(self, trajectory: Trajectory, sight: Sight) -> list[Message] | None:
        """Judge the last reply, then the messages before the next one; None when the episode is over."""
        ...


def fill(
    text: str, question: Question, view: View | None = None, reason: str = "", looks: str = ""
) -> tuple[str | View, ...]:
    """Put a question, its choices, a view, a reason and a number of looks into the slots of a text.

    One pass over the text: what a question says is never searched for slots itself.
    """
    values = {"{question}": question.text, "{choices}": list_choices(question.choices)}
    values |= {"{reason}": reason, "{looks}": looks}
    parts: list[str | View] = []
    for piece in _SLOT.split(text):
        if piece == "{image}":
            if view is None:
                raise ValueError(f"this text shows an image, but there is none to show here: {text!r}")
            parts.append(view)
        elif piece := values.get(piece, piece):
            if parts and isinstance(parts[-1], str):
                parts[-1] += piece
            else:
                parts.append(piece)
    return tuple(parts)


def list_choices(choices: tuple[str, ...]) -> str:
    """One "(A) text" a line, each on a line of its own; nothing where there are no choices."""
    return "".join(f"\n({letter}) {choice}" for letter, choice in zip(LETTERS, choices))
