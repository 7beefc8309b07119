"""An answer that has to come from the crop: the answering turn sees neither the first picture nor the box reply."""

from mgpo.dialogues.base import WHICH, check_texts, fill
from mgpo.dialogues.cuts import Cut, look
from mgpo.dialogues.single_turn import ASK_ANSWER
from mgpo.dialogues.two_turn import ASK_BOX, SYSTEM, TwoTurn
from mgpo.images.boxes import REASONS, BoxRule
from mgpo.images.views import VisionResolution
from mgpo.types import Message, Trajectory

NOTHING_TO_SEE = (
    "No part could be cut out, because {reason}. {question}{choices}\nGive your final answer inside \\boxed{}."
)


class BlindAnswer(TwoTurn):
    """Ask for a box as in TwoTurn, then ask the question anew of the crop alone (after HART, arXiv 2602.23615).

    The second turn is a conversation of its own, so that a right answer needs a right crop. Both turns are learnt
    with the episode's advantage. After a box that can't be used no picture is shown, but the sample is not dropped.

    Args:
        system: The system message, of both conversations. In the others {width} and {height} are those of the first
            picture as the model sees it, in pixels.
        ask_box: The first user turn; slots {image}, {question}, {units}.
        ask_answer: What is asked of the crop; slots {image}, {question}, {choices}. By default the words in which
            evaluations ask whether a sub-image answers the question alone.
        refuse: What is asked where there is none; slots {question}, {choices}, {reason}.
        rule: Which boxes may be cut out.
        cut: What is cut out for a box; by default the box itself.
        which: Put behind the request for a box where there are several pictures.
    """

    def __init__(
        self,
        system: str = SYSTEM,
        ask_box: str = ASK_BOX,
        ask_answer: str = ASK_ANSWER,
        refuse: str = NOTHING_TO_SEE,
        rule: BoxRule = BoxRule(),
        cut: Cut | None = None,
        which: str = WHICH,
    ) -> None:
        super().__init__(system=system, ask_box=ask_box, rule=rule, cut=cut, which=which)
        needs = {"ask_answer": "image question choices -reason -looks", "refuse": "question choices -image -looks"}
        check_texts(needs, ask_answer=ask_answer, refuse=refuse)
        self.ask_answer, self.refuse = ask_answer, refuse

    def proceed(self, trajectory: Trajectory, resolution: VisionResolution) -> list[Message] | None:
        """Begins anew with the named part, or with the reason why there is none; takes the answer in the last turn."""
        if len(trajectory.turns) == self.turns:
            return super().proceed(trajectory, resolution)
        wholes = trajectory.wholes
        view, reason = look(trajectory, wholes, resolution, self.rule, self.cut)
        if view is not None:
            trajectory.views.append(view)
        text = self.refuse if view is None else self.ask_answer
        why, frame = REASONS[reason or "no_box"], resolution.frame
        asked = fill(text, trajectory.question, view, frame=frame, reason=why, size=wholes[0].size)
        return [Message("system", (self.system,)), Message("user", asked)]
