"""Dialogues: what is said in each turn, and when an episode ends."""

from mgpo.dialogues.base import Dialogue, answer_of, fill, find_box, see_whole
from mgpo.dialogues.blind_answer import BlindAnswer
from mgpo.dialogues.cuts import Cut, Enlarged, PlainCut, Turned, WithMargin
from mgpo.dialogues.free_turns import FreeTurns
from mgpo.dialogues.single_turn import SingleTurn, answer_only
from mgpo.dialogues.two_turn import TwoTurn

__all__ = [
    "BlindAnswer", "Cut", "Dialogue", "Enlarged", "FreeTurns", "PlainCut", "SingleTurn", "Turned", "TwoTurn",
    "WithMargin", "answer_of", "answer_only", "fill", "find_box", "see_whole",
]  # fmt: skip
