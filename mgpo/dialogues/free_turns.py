"""The general algorithm (paper, algorithm 1): each turn the policy answers, or names a part to see first."""

from mgpo.dialogues.base import answer_of, check_texts, fill, see_whole
from mgpo.dialogues.cuts import Cut, implementing_cut, look
from mgpo.dialogues.two_turn import BOX_BLOCK_END, SYSTEM
from mgpo.errors import UserError
from mgpo.images.boxes import REASONS, BoxRule
from mgpo.images.views import VisionResolution
from mgpo.types import Message, Trajectory

ASK_FREELY = (
    "{image}{question}{choices}\n"
    "Give your final answer inside \\boxed{}. If you have to see a part more closely first, name it instead, as JSON "
    'in {units}: ```json\n[{"bbox_2d": [x1, y1, x2, y2], "label": "what is there"}]\n```\n'
    'For a part of picture number n add "picture": n. You may look {looks}.'
)
SHOW_PART = "Here is that part, cut from the full-resolution picture: {image}{question}{choices}\n"
REFUSE_PART = "No part could be cut out, because {reason}. {question}{choices}\n"
GO_ON = "Give your final answer inside \\boxed{}, or name a part again. You may look {looks} more."
FINISH = "You may not look again. Give your final answer inside \\boxed{}."


class FreeTurns:
    """The policy crops, crops again or answers, as it decides, up to `turns` replies.

    A reply that closes a box block is a look; otherwise an answer ends the episode; otherwise any box
    is a look. Boxes are named in the first picture, or in another one by its number: what is shown is counted from 1.
    An episode whose last reply is yet another look is marked as `limited`.

    Args:
        turns: Replies at most; the policy is told how many looks that leaves.
        system: The system message. In the others {width} and {height} are those of the picture that is shown as the
            model sees it, in pixels; without one, of the first.
        ask: The first user turn; slots {image}, {question}, {choices}, {looks}, {units}.
        show: The user turn after a valid box; slots {image}, {question}, {choices}.
        refuse: The user turn after an invalid one; slots {question}, {choices}, {reason}.
        go_on: Put behind `show` and `refuse` while looks are left; slot {looks}.
        finish: Put behind them when none is left.
        rule: Which boxes may be cut out.
        cut: What is cut out for a box; by default the box itself.
    """

    def __init__(
        self,
        turns: int = 3,
        system: str = SYSTEM,
        ask: str = ASK_FREELY,
        show: str = SHOW_PART,
        refuse: str = REFUSE_PART,
        go_on: str = GO_ON,
        finish: str = FINISH,
        rule: BoxRule = BoxRule(),
        cut: Cut | None = None,
    ) -> None:
        if turns < 1:
            raise UserError(f"dialogue.turns is {turns}; an answer needs at least 1")
        needs = {
            "ask": "image question choices -reason", "show": "image -reason", "refuse": "-image",
            "go_on": "-image -reason", "finish": "-image -reason",
        }  # fmt: skip
        check_texts(needs, ask=ask, show=show, refuse=refuse, go_on=go_on, finish=finish)
        self.turns, self.system, self.rule, self.cut = turns, system, rule, implementing_cut(cut)
        self.ask, self.show, self.refuse, self.go_on, self.finish = ask, show, refuse, go_on, finish

    def stop_text(self, turn: int) -> str | None:
        """The end of a box's block, behind which the policy waits to be shown the part."""
        return BOX_BLOCK_END

    def open(self, trajectory: Trajectory, resolution: VisionResolution) -> list[Message]:
        """Shows the pictures and asks; says how many looks there are."""
        first, *others = see_whole(trajectory, resolution)
        looks, frame = _times(self.turns - 1), resolution.frame
        asked = fill(self.ask, trajectory.question, first, frame=frame, looks=looks, size=first.size, others=others)
        return [Message("system", (self.system,)), Message("user", asked)]

    def proceed(self, trajectory: Trajectory, resolution: VisionResolution) -> list[Message] | None:
        """Ends the episode at an answer or the last turn; else shows the named part, or says why it can't be shown."""
        turn = trajectory.turns[-1]
        if turn.reply.stop != "marker":
            trajectory.answer = answer_of(turn, trajectory.question)
        if trajectory.answer is not None:
            turn.action = "answer"
            return None
        view, reason = look(trajectory, trajectory.views, resolution, self.rule, self.cut)
        left = self.turns - len(trajectory.turns)
        if left <= 0:
            trajectory.limited = reason != "no_box"
            turn.action = "look refused" if trajectory.limited else "nothing"
            return None
        text = (self.refuse if view is None else self.show) + (self.finish if left == 1 else self.go_on)
        if view is not None:
            trajectory.views.append(view)
        size = (view or trajectory.views[0]).size
        why, looks, frame = REASONS[reason or "no_box"], _times(left - 1), resolution.frame
        asked = fill(text, trajectory.question, view, frame=frame, reason=why, looks=looks, size=size)
        return [Message("user", asked)]


def _times(looks: int) -> str:
    return "once" if looks == 1 else f"{looks} times"
