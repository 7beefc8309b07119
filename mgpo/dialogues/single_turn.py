"""One turn: the GRPO baseline, and the same picture asked about without any box."""

from mgpo.dialogues.base import WHICH, answer_of, check_texts, fill, find_box, see_whole
from mgpo.dialogues.two_turn import SYSTEM
from mgpo.images.boxes import BoxRule
from mgpo.images.views import VisionResolution
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
        ask: The user turn; slots {image}, {question}, {choices}, {units}, and {width} and {height} of that picture, or
            of the first, as the model sees it, in pixels.
        rule: Which boxes count as valid.
        judge_box: Whether the text asks for a box at all.
        which: Put behind `ask` where a box is asked for in one of several pictures.
    """

    def __init__(
        self,
        system: str = SYSTEM,
        ask: str = ASK_BOTH,
        rule: BoxRule = BoxRule(),
        judge_box: bool = True,
        which: str = WHICH,
    ) -> None:
        check_texts({"ask": "image question choices -reason -looks"}, ask=ask)
        self.system, self.ask, self.rule, self.judge_box, self.which = system, ask, rule, judge_box, which

    def stop_text(self, turn: int) -> str | None:
        """None: the only reply ends by itself."""
        return None

    def open(self, trajectory: Trajectory, resolution: VisionResolution) -> list[Message]:
        """Shows the pictures and asks."""
        first, *others = see_whole(trajectory, resolution)
        ask = self.ask + (self.which if others and self.judge_box else "")
        asked = fill(ask, trajectory.question, first, frame=resolution.frame, size=first.size, others=others)
        return [Message("system", (self.system,)), Message("user", asked)]

    def proceed(self, trajectory: Trajectory, resolution: VisionResolution) -> list[Message] | None:
        """Takes the answer, judges the box where one was asked for, and ends the episode."""
        turn = trajectory.turns[-1]
        trajectory.answer = answer_of(turn, trajectory.question)
        turn.action = "nothing" if trajectory.answer is None else "answer"
        if self.judge_box:
            turn.seen, turn.parsed_box = find_box(turn.said, trajectory.wholes, resolution.frame, self.rule)
        return None


def answer_only() -> SingleTurn:
    """One picture, one question, no box: how a sub-image is asked whether it answers the question alone."""
    return SingleTurn(ask=ASK_ANSWER, judge_box=False)
