"""The paper's fixed template (section 3.4): first where to look, then the answer. More looks at test time if wanted."""

from mgpo.dialogues.base import WHICH, answer_of, check_texts, fill, see_whole
from mgpo.dialogues.cuts import Cut, implementing_cut, look
from mgpo.errors import UserError
from mgpo.images.boxes import REASONS, BoxRule
from mgpo.images.views import VisionResolution
from mgpo.types import Message, Trajectory

SYSTEM = "You answer questions about pictures whose details may be too small to see at first."
BOX_BLOCK_END = "]\n```"
ASK_BOX = (
    "{image}{question}\n"
    "Do not answer yet. Name the part of the picture that has to be seen more closely, as JSON in {units}: "
    '```json\n[{"bbox_2d": [x1, y1, x2, y2], "label": "what is there"}]\n```'
)
SHOW_REGION = (
    "Here is that part, cut from the full-resolution picture: {image}{question}{choices}\n"
    "Look at both pictures, then give your final answer inside \\boxed{}."
)
SHOW_WHOLE = (
    "No part could be cut out, because {reason}. Here is the whole picture again: {image}{question}{choices}\n"
    "Look at it, then give your final answer inside \\boxed{}."
)

_AGAIN = (
    "Do not answer yet. Name once more the part of the first picture that has to be seen more closely, as JSON: "
    '```json\n[{"bbox_2d": [x1, y1, x2, y2], "label": "what is there"}]\n```'
)
LOOK_AGAIN = "Here is that part, cut from the full-resolution picture: {image}{question}\n" + _AGAIN
NAME_AGAIN = "No part could be cut out, because {reason}. Here is the whole picture again: {image}{question}\n" + _AGAIN


class TwoTurn:
    """Ask for a box without showing the choices, cut it from the original, ask for the answer.

    An invalid box never drops the sample: the whole picture is shown again with the reason; of several the one that
    the box is in, or the first. With more than two turns each but the last asks for a box in what was shown first, and
    an invalid one falls back on the part that was cut before.

    Args:
        system: The system message. In the others {width} and {height} are those of the first picture as the model
            sees it, in pixels.
        ask_box: The first user turn; slots {image}, {question}, {units}.
        show_region: The second user turn after a valid box; slots {image}, {question}, {choices}.
        show_whole: The second user turn after an invalid one; the same slots and {reason}.
        look_again: A middle turn after a valid box; slots {image}, {question}.
        name_again: A middle turn after an invalid one; the same slots and {reason}.
        rule: Which boxes may be cut out.
        turns: Turns in all; the paper trains with 2 and also tests with 3.
        cut: What is cut out for a box; by default the box itself.
        which: Put behind each request for a box where there are several pictures.
    """

    def __init__(
        self,
        system: str = SYSTEM,
        ask_box: str = ASK_BOX,
        show_region: str = SHOW_REGION,
        show_whole: str = SHOW_WHOLE,
        look_again: str = LOOK_AGAIN,
        name_again: str = NAME_AGAIN,
        rule: BoxRule = BoxRule(),
        turns: int = 2,
        cut: Cut | None = None,
        which: str = WHICH,
    ) -> None:
        if turns < 2:
            raise UserError(f"dialogue.turns is {turns}; a look and an answer need at least 2")
        choices = "" if "{choices}" in ask_box else "choices"
        check_texts(
            {
                "ask_box": "image question -reason -looks", "show_region": f"image {choices} -reason -looks",
                "show_whole": f"{choices} -looks", "look_again": "image -reason -looks", "name_again": "-looks",
            },
            ask_box=ask_box, show_region=show_region, show_whole=show_whole, look_again=look_again,
            name_again=name_again,
        )  # fmt: skip
        self.system, self.ask_box, self.rule, self.turns = system, ask_box, rule, turns
        self.show_region, self.show_whole = show_region, show_whole
        self.look_again, self.name_again, self.cut, self.which = look_again, name_again, implementing_cut(cut), which

    def stop_text(self, turn: int) -> str | None:
        """The end of a box's block, in all turns but the last."""
        return BOX_BLOCK_END if turn < self.turns - 1 else None

    def open(self, trajectory: Trajectory, resolution: VisionResolution) -> list[Message]:
        """Shows the pictures and asks for the key area alone, without the choices."""
        first, *others = see_whole(trajectory, resolution)
        ask = self.ask_box + (self.which if others else "")
        asked = fill(ask, trajectory.question, first, frame=resolution.frame, size=first.size, others=others)
        return [Message("system", (self.system,)), Message("user", asked)]

    def proceed(self, trajectory: Trajectory, resolution: VisionResolution) -> list[Message] | None:
        """Shows the named part, or the last picture again with the reason; takes the answer in the last turn."""
        turn, wholes = trajectory.turns[-1], trajectory.wholes
        if len(trajectory.turns) == self.turns:
            trajectory.answer = answer_of(turn, trajectory.question)
            turn.action = "nothing" if trajectory.answer is None else "answer"
            return None
        view, reason = look(trajectory, wholes, resolution, self.rule, self.cut)
        if view is None:
            view = (trajectory.crops or [turn.seen or wholes[0]])[-1]
        trajectory.views.append(view)
        last = len(trajectory.turns) == self.turns - 1
        if any(view is whole for whole in wholes):
            text = self.show_whole if last else self.name_again
        else:
            text = self.show_region if last else self.look_again
        if len(wholes) > 1 and not last:
            text += self.which
        why, frame = REASONS[reason or "no_box"], resolution.frame
        asked = fill(text, trajectory.question, view, frame=frame, reason=why, size=wholes[0].size)
        return [Message("user", asked)]
