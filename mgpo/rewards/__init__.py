"""Rewards: what judges an answer, and what may be added to that in training. A new one is a new file here."""

from mgpo.rewards.correctness import ExactAnswer, NumericAnswer, Reward
from mgpo.rewards.shaping import Extra, Format, MatchedPoints, TurnCost

__all__ = ["ExactAnswer", "Extra", "Format", "MatchedPoints", "NumericAnswer", "Reward", "TurnCost"]
