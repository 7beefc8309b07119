"""The paper's fixed two-turn template (section 3.4): first where to look, then the answer."""

from mgpo.answers import extract
from mgpo.boxes import REASONS, BoxRule, find_box
from mgpo.dialogues.base import fill
from mgpo.types import Message, Trajectory
from mgpo.views import Sight, View

SYSTEM = "You answer questions about pictures whose details may be too small to see at first."
BOX_BLOCK_END = "]\n```"
ASK_BOX = (
    "{image}{question}\n"
    "Do not answer yet. Name the part of the picture that has to be seen more closely, as JSON in pixels of this "
    'picture: ```json\n[{"bbox_2d": [x1, y1, x2, y2], "label": "what is there"}]\n```'
)
SHOW_REGION = (
    "Here is that part, cut from the full-resolution picture: {image}{question}{choices}\n"
    "Look at both pictures, then give your final answer inside \\boxed{}."
)
SHOW_WHOLE = (
    "No part could be cut out, because {reason}. Here is the whole picture again: {image}{question}{choices}\n"
    "Look at it, then give your final answer inside \\boxed{}."
)


class TwoTurn:
    """Ask for a box without showing the choices, cut it from the original, ask for the answer.

    An invalid box never drops the sample: the whole picture is shown again with the reason.

    Args:
        system: The system message.
        ask_box: The first user turn; slots {image}, {question}.
        show_region: The second user turn after a valid box; slots {image}, {question}, {choices}.
        show_whole: The second user turn after an invalid one; the same slots and {reason}.
        rule: Which boxes may be cut out.
    """

    def __init__(
        self,
        system: str = SYSTEM,
        ask_box: str = ASK_BOX,
        show_region: str = SHOW_REGION,
        show_whole: str = SHOW_WHOLE,
        rule: BoxRule = BoxRule(),
    ) -> None:
        self.system, self.ask_box, self.show_region, self.show_whole = system, ask_box, show_region, show_whole
        self.rule = rule

    def stop_text(self, turn: int) -> str | None:
        return BOX_BLOCK_END if turn == 0 else None

    def open(self, trajectory: Trajectory, sight: Sight) -> list[Message]:
        view = View.whole(trajectory.image.size, sight.whole)
        trajectory.views.append(view)
        return [
            Message("system", (self.system,)),
            Message("user", fill(self.ask_box, trajectory.question, view)),
        ]

    def proceed(self, trajectory: Trajectory, sight: Sight) -> list[Message] | None:
        turn, first = trajectory.turns[-1], trajectory.views[0]
        if len(trajectory.turns) == 2:
            trajectory.answer = extract(turn.text)
            return None
        turn.finding = find_box(turn.text, first.size, sight.frame, self.rule)
        if turn.finding.box is not None:
            view, text, reason = first.crop(turn.finding.box, sight.crop), self.show_region, ""
        else:
            view, text, reason = first, self.show_whole, REASONS[turn.finding.reason or "no_box"]
        trajectory.views.append(view)
        return [Message("user", fill(text, trajectory.question, view, reason))]
