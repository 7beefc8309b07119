"""Rewards: what judges an answer, and what may be added to that in training. A new one is a new file here."""

from mgpo.rewards.by_source import BySource
from mgpo.rewards.correctness import ExactAnswer, NumericAnswer, Reward, Verdict, verdict_of, verdicts_of
from mgpo.rewards.own import as_reward
from mgpo.rewards.shaping import Format, MatchedPoints, Shaping, TurnCost

__all__ = [
    "BySource", "ExactAnswer", "Format", "MatchedPoints", "NumericAnswer", "Reward", "Shaping", "TurnCost", "Verdict",
    "as_reward", "verdict_of", "verdicts_of",
]  # fmt: skip
