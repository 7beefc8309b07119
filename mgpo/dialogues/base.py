"""What every dialogue shares: its interface, and how texts with slots become messages."""

import difflib
import re
from abc import abstractmethod
from collections.abc import Mapping, Sequence

from mgpo.answers import LETTERS, extract
from mgpo.errors import UserError
from mgpo.images.boxes import BoxRule, ParsedBox, parse_box
from mgpo.images.views import Frame, Size, View, VisionResolution
from mgpo.types import Message, Question, Trajectory, Turn
from mgpo.utils.interface import Interface

WHICH = '\nFor a part of picture number n add "picture": n.'  # behind a request for a box, where there are several
SLOTS = ("image", "question", "choices", "reason", "looks", "units", "width", "height")
_SLOT = re.compile(rf"(\{{(?:{'|'.join(SLOTS)})\}})")
_NAMED = re.compile(r"(?<!\{)\{(\w+)\}(?!\})")  # what may have been meant for a slot
NEAR = 0.75  # from this likeness on a name is a slot's, misspelt

UNITS = {  # in which a policy is asked to name a box
    Frame.PIXELS: "pixels of this picture",
    Frame.THOUSAND: "thousandths of this picture's width and height, from 0 to 1000",
    Frame.UNIT: "shares of this picture's width and height, from 0 to 1",
}


class Dialogue(Interface):
    """What is said in each turn, and when the episode ends. Knows texts and views, not engines.

    A dialogue holds no state: everything that has happened stands in the trajectory. `proceed` sets what it finds in
    the last turn (`action`, and `parsed_box` and `seen` where it looked for a box) and, at the end, the answer.

    Example:
        One more chance to answer. In my_dialogues.py::

            from mgpo.dialogues import SingleTurn
            from mgpo.images import VisionResolution
            from mgpo.types import Message, Trajectory


            class Insisting(SingleTurn):
                def proceed(self, trajectory: Trajectory, resolution: VisionResolution) -> list[Message] | None:
                    super().proceed(trajectory, resolution)
                    if trajectory.answer is not None or len(trajectory.turns) > 1:
                        return None
                    return [Message("user", ("Answer now, inside \\boxed{}.",))]

        and on the command line ``--model.dialogue my_dialogues.Insisting``.
    """

    @abstractmethod
    def stop_text(self, turn: int) -> str | None:
        """The text that ends the policy's reply in a turn (counted from 0), besides its end-of-turn token."""
        ...

    @abstractmethod
    def open(self, trajectory: Trajectory, resolution: VisionResolution) -> list[Message]:
        """The messages before the first reply; the views they show are appended to `trajectory.views`, whole pictures.

        `see_whole` appends those of all originals.
        """
        ...

    @abstractmethod
    def proceed(self, trajectory: Trajectory, resolution: VisionResolution) -> list[Message] | None:
        """Judge the last reply, then the messages before the next one; None when the episode is over.

        A view that they show is appended to `trajectory.views`, behind the whole pictures.

        Messages that begin with one of the system begin a conversation of their own: the next reply sees them alone.
        """
        ...


def check_texts(needs: Mapping[str, str], **texts: str) -> None:
    """Refuse texts that would leave out what they are for.

    Args:
        needs: By the name of a text the slots that it must have, such as "image question"; "-image" is one that it
            must not have, because nothing fills it there.
        texts: By name, all texts with slots.

    Raises:
        UserError: For a slot that is missing, misspelt, or must not be there.
    """
    for name, text in texts.items():
        for found in _NAMED.finditer(text):
            word, latex = found[1], re.search(r"\\\w+$", text[: found.start()])
            if not latex and word not in SLOTS and (near := difflib.get_close_matches(word.lower(), SLOTS, 1, NEAR)):
                raise UserError(f"dialogue.{name} has {{{word}}}, which is no slot; did you mean {{{near[0]}}}?")
    for name, slots in needs.items():
        for slot in slots.split():
            if slot[0] == "-" and f"{{{slot[1:]}}}" in texts[name]:
                raise UserError(f"dialogue.{name} has the slot {{{slot[1:]}}}, but nothing fills it there; take it out")
            if slot[0] != "-" and f"{{{slot}}}" not in texts[name]:
                empty = ", which is empty where a question has none" if slot == "choices" else ""
                raise UserError(f"dialogue.{name} lacks the slot {{{slot}}}{empty}; the policy would never see it")


def answer_of(turn: Turn, question: Question) -> str | None:
    """What a reply commits to, thoughts aside; a reply that is the right answer and nothing else is its own answer."""
    return extract(turn.said, question.choices, question.answer, *question.accepted)


def see_whole(trajectory: Trajectory, resolution: VisionResolution) -> list[View]:
    """The first views of all of the question's pictures, in order, noted in the trajectory."""
    trajectory.views += [
        View.full(original.size, resolution.full, place) for place, original in enumerate(trajectory.originals)
    ]
    return trajectory.wholes


def find_box(text: str, views: Sequence[View], frame: Frame, rule: BoxRule) -> tuple[View | None, ParsedBox]:
    """The box that a reply names in one of these views, which are numbered from 1 on, and that view.

    No view where the reply names a number that none of them has.
    """
    parsed_box = parse_box(text, views[0].size, frame, rule, [view.size for view in views[1:]])
    return (None if parsed_box.reason == "no_picture" else views[parsed_box.picture]), parsed_box


def fill(
    text: str,
    question: Question,
    view: View | None = None,
    *,
    frame: Frame | None = None,
    reason: str = "",
    looks: str = "",
    size: Size | None = None,
    others: Sequence[View] = (),
) -> tuple[str | View, ...]:
    """Put a question, its choices, a view, a frame's units, a reason and a number of looks into the slots of a text.

    {units} are those of the `frame`. {width} and {height} are those of `size`, in pixels: the picture in which boxes
    are named, as the model sees it. Without them these slots stay as they are.
    Where there are `others` besides the view, all of them are shown, each on a line that begins with its number.
    One pass over the text: what a question says is never searched for slots itself.
    """
    values = {"{question}": question.text, "{choices}": list_choices(question.choices)}
    values |= {"{reason}": reason, "{looks}": looks}
    if frame is not None:
        values["{units}"] = UNITS[frame]
    if size is not None:
        values |= {"{width}": str(size[0]), "{height}": str(size[1])}
    parts: list[str | View] = []
    for piece in _SLOT.split(text):
        if piece == "{image}":
            if view is None:
                raise ValueError(f"this text shows an image, but there is none to show here: {text!r}")
            parts += _numbered([view, *others]) if others else [view]
        elif piece := values.get(piece, piece):
            if parts and isinstance(parts[-1], str):
                parts[-1] += piece
            else:
                parts.append(piece)
    return tuple(parts)


def _numbered(views: Sequence[View]) -> list[str | View]:
    lines = [(f"Picture {number}: ", view, "\n") for number, view in enumerate(views, start=1)]
    return [part for line in lines for part in line]


def list_choices(choices: tuple[str, ...]) -> str:
    """One "(A) text" a line, each on a line of its own; nothing where there are no choices."""
    return "".join(f"\n({letter}) {choice}" for letter, choice in zip(LETTERS, choices))
