"""A dialogue is asked what is said next. One of somebody's own may say anything: that is checked here."""

from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Any, get_args

from mgpo.dialogues.base import Dialogue
from mgpo.images.boxes import ParsedBox
from mgpo.images.views import View, VisionResolution
from mgpo.types import Action, Message, Role, Trajectory
from mgpo.utils.own_code import blaming

MOST_TURNS = 100  # of an episode; a dialogue that goes on for longer never ends


def opening_of(dialogue: Dialogue, trajectory: Trajectory, resolution: VisionResolution) -> list[Message]:
    """What `open` says. Raises UserError where it fails, says no messages, or shows no picture."""
    with _blaming(dialogue, trajectory):
        messages = _checked(dialogue.open(trajectory, resolution), trajectory)
        if not any(isinstance(part, View) for message in messages for part in message.parts):
            raise ValueError("its open gives no message with a picture, of which see_whole knows the views")
        return messages


def next_of(dialogue: Dialogue, trajectory: Trajectory, resolution: VisionResolution) -> list[Message] | None:
    """What `proceed` says. Raises UserError where it fails, says no messages, or never ends."""
    with _blaming(dialogue, trajectory):
        messages = dialogue.proceed(trajectory, resolution)
        _check_findings(trajectory)
        most = max(MOST_TURNS, getattr(dialogue, "turns", 0))
        if messages is not None and len(trajectory.turns) >= most:
            raise ValueError(f"it goes on behind {most} replies; its proceed has to give None at some time")
        return None if messages is None else _checked(messages, trajectory)


def stop_of(dialogue: Dialogue, turn: int) -> str | None:
    """Its `stop_text` of a turn. Raises UserError where it fails, or gives something else."""
    with blaming(f"stop_text of the dialogue {type(dialogue).__name__}, asked for turn {turn},"):
        text = dialogue.stop_text(turn)
        if not isinstance(text, str | None):
            raise TypeError(f"a text or None is needed, not {text!r}")
        return text or None


def begins_anew(messages: Sequence[Message]) -> bool:
    """Whether these messages of `proceed` begin a conversation of their own: the first of them is the system's."""
    return bool(messages) and messages[0].role == "system"


def _blaming(dialogue: Dialogue, trajectory: Trajectory) -> AbstractContextManager[None]:
    return blaming(f"the dialogue {type(dialogue).__name__}, at question {trajectory.question.id},")


def _checked(messages: Any, trajectory: Trajectory) -> list[Message]:
    if not isinstance(messages, list | tuple) or not messages or not all(isinstance(m, Message) for m in messages):
        raise TypeError(f"a list of messages is needed, not {messages!r}")
    for message in messages:
        if message.role not in get_args(Role):
            raise ValueError(f"a message's role is one of {', '.join(get_args(Role))}, not {message.role!r}")
        if not isinstance(message.parts, list | tuple) or not all(isinstance(p, str | View) for p in message.parts):
            raise TypeError(f"a message's parts are a tuple of texts and views, not {message.parts!r}")
        if any(isinstance(part, View) and part not in trajectory.views for part in message.parts):
            raise ValueError("it shows a view that is not in trajectory.views; append it there")
    return list(messages)


def _check_findings(trajectory: Trajectory) -> None:
    """Raises TypeError where `proceed` has noted what nothing here can read."""
    turn = trajectory.turns[-1]
    for name, value, fits in (
        ("turn.parsed_box", turn.parsed_box, isinstance(turn.parsed_box, ParsedBox | None)),
        ("turn.action", turn.action, turn.action in (*get_args(Action), None)),
        ("trajectory.answer", trajectory.answer, isinstance(trajectory.answer, str | None)),
    ):
        if not fits:
            what = {"turn.parsed_box": "what find_box gives", "turn.action": f"one of {', '.join(get_args(Action))}"}
            raise TypeError(f"{name} has to be {what.get(name, 'a text')} or None, not {value!r}")
