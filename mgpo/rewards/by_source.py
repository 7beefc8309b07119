"""A reward for each source of a mixture."""

from collections.abc import Collection, Mapping

from mgpo.errors import UserError
from mgpo.rewards.correctness import ExactAnswer, Reward, Verdict
from mgpo.rewards.own import as_reward
from mgpo.types import Question
from mgpo.utils.own_code import Called


class BySource:
    """Judges a question by the reward of the source it came from, by the name that it has in `mgpo.data.Mixture`.

    Args:
        rewards: By the source's name.
        otherwise: Of all other questions; ExactAnswer unless given.
    """

    def __init__(
        self, rewards: Mapping[str, Reward | Called | str], otherwise: Reward | Called | str | None = None
    ) -> None:
        self.rewards = {name: as_reward(reward) for name, reward in rewards.items()}
        self.otherwise = as_reward(otherwise or ExactAnswer())

    def __call__(self, answer: str | None, question: Question) -> float | Verdict:
        """Judge an answer by the reward of its question's source."""
        return self.rewards.get(question.source, self.otherwise)(answer, question)

    def check(self, names: Collection[str]) -> None:
        """Raises UserError for a reward whose source is not among the names: it would judge nothing."""
        if unknown := [name for name in self.rewards if name not in names]:
            there = ", ".join(sorted(names)) or "none, which takes mgpo.data.Mixture"
            raise UserError(f"model.reward: no source is called {unknown[0]!r}; the names in data are: {there}")
