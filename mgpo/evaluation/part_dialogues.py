"""Parts of a dialogue, played by themselves: up to its first look, or its last turn alone."""

from collections.abc import Sequence
from dataclasses import replace

from mgpo.dialogues import Dialogue
from mgpo.dialogues.base import answer_of
from mgpo.images.views import VisionResolution
from mgpo.types import Message, Trajectory


class UpToFirstLook:
    """A dialogue that ends where its first part would be shown.

    Args:
        dialogue: The whole of it.
    """

    def __init__(self, dialogue: Dialogue) -> None:
        self.dialogue = dialogue

    def stop_text(self, turn: int) -> str | None:
        """As the dialogue has it."""
        return self.dialogue.stop_text(turn)

    def open(self, trajectory: Trajectory, resolution: VisionResolution) -> list[Message]:
        """Begins as the dialogue does."""
        return self.dialogue.open(trajectory, resolution)

    def proceed(self, trajectory: Trajectory, resolution: VisionResolution) -> list[Message] | None:
        """Goes on as the dialogue does, but for a look."""
        messages = self.dialogue.proceed(trajectory, resolution)
        return None if trajectory.turns[-1].action == "look" else messages


class LastTurn:
    """What episodes were shown and asked from their last crop on, in one turn: no box is asked for, and none is named.

    Args:
        dialogue: In which the episodes were played.
        played: The episodes, of whose very questions it is asked.
        picture: Whether the whole picture is shown as well, in front of the crop.
    """

    def __init__(self, dialogue: Dialogue, played: Sequence[Trajectory], picture: bool) -> None:
        self.dialogue, self.picture = dialogue, picture
        self.played = {id(t.question): t for t in played}  # ids of two sources may be the same

    def stop_text(self, turn: int) -> str | None:
        """None: the only reply ends by itself."""
        return None

    def open(self, trajectory: Trajectory, resolution: VisionResolution) -> list[Message]:
        """The system's message, and one of the user's with the pictures and the last question."""
        played = self.played[id(trajectory.question)]
        again = Trajectory.begin(*played.asked)
        opening = self.dialogue.open(again, resolution)
        shown: list[Message] = []
        for turn in played.turns[:-1]:
            again.turns.append(replace(turn))
            messages = self.dialogue.proceed(again, resolution) or ()
            shown = [*messages] if again.turns[-1].action == "look" else [*shown, *messages]
        trajectory.views += again.views
        first = again.wholes if self.picture else []
        parts = (*first, *(part for message in shown if message.role == "user" for part in message.parts))
        return [*(message for message in opening if message.role == "system"), Message("user", parts)]

    def proceed(self, trajectory: Trajectory, resolution: VisionResolution) -> None:
        """Takes the answer and ends."""
        turn = trajectory.turns[-1]
        trajectory.answer = answer_of(turn, trajectory.question)
        turn.action = "nothing" if trajectory.answer is None else "answer"
