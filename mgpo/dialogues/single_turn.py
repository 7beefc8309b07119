"""One turn: the GRPO baseline, and the same picture asked about without any box."""

from mgpo.dialogues.base import answer_of, fill
from mgpo.dialogues.two_turn import SYSTEM
from mgpo.images.boxes import BoxRule, parse_box
from mgpo.images.views import View, VisionResolution
from mgpo.types import Message, Trajectory

ASK_BOTH = (
    "{image}{question}{choices}\n"
    "First name the part of the picture that shows it, as JSON in {units}: "
    '```json\n[{"bbox_2d": [x1, y1, x2, y2], "label": "what is there"}]\n```\n'
    "Then give your final answer inside \\boxed{}."
)
ASK_ANSWER = "{image}{question}{choices}\nGive your final answer inside \\boxed{}."


class SingleTurn:
    """Ask once, for a box and the answer; the box is judged (so that its ratio can be compared), never cut out.

    Args:
        system: The system message.
        ask: The user turn; slots {image}, {question}, {choices}, {units}, and {width} and {height} of that picture as
            the model sees it, in pixels.
        rule: Which boxes count as valid.
        judge_box: Whether the text asks for a box at all.
    """

    def __init__(
        self, system: str = SYSTEM, ask: str = ASK_BOTH, rule: BoxRule = BoxRule(), judge_box: bool = True
    ) -> None:
        self.system, self.ask, self.rule, self.judge_box = system, ask, rule, judge_box

    def stop_text(self, turn: int) -> str | None:
        """None: the only reply ends by itself."""
        return None

    def open(self, trajectory: Trajectory, resolution: VisionResolution) -> list[Message]:
        """Shows the picture and asks."""
        view = View.full(trajectory.image.size, resolution.full)
        trajectory.views.append(view)
        return [
            Message("system", (self.system,)),
            Message("user", fill(self.ask, trajectory.question, view, frame=resolution.frame, size=view.size)),
        ]

    def proceed(self, trajectory: Trajectory, resolution: VisionResolution) -> list[Message] | None:
        """Takes the answer, judges the box where one was asked for, and ends the episode."""
        turn, view = trajectory.turns[-1], trajectory.views[0]
        trajectory.answer = answer_of(turn, trajectory.question)
        turn.action = "nothing" if trajectory.answer is None else "answer"
        if self.judge_box:
            turn.seen, turn.parsed_box = view, parse_box(turn.said, view.size, resolution.frame, self.rule)
        return None


def answer_only() -> SingleTurn:
    """One picture, one question, no box: how a sub-image is asked whether it answers the question alone."""
    return SingleTurn(ask=ASK_ANSWER, judge_box=False)
