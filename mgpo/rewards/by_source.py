"""A reward for each source of a mixture."""

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence

from mgpo.errors import UserError
from mgpo.rewards.correctness import ExactAnswer, Reward, Verdict, counts_of, verdicts_of
from mgpo.rewards.own import ByName, as_reward
from mgpo.types import Question


class BySource:
    """Judges a question by the reward of the source it came from, by the name that it has in `mgpo.data.Mixture`.

    Args:
        rewards: By the source's name.
        otherwise: Of all other questions; ExactAnswer unless given.
    """

    def __init__(self, rewards: Mapping[str, Reward | str], otherwise: Reward | str | None = None) -> None:
        self.rewards = {name: as_reward(reward) for name, reward in rewards.items()}
        self.otherwise = as_reward(otherwise or ExactAnswer())

    def __call__(self, answer: str | None, question: Question) -> float | Verdict:
        """Judge an answer by the reward of its question's source."""
        return self._of(question)(answer, question)

    def judge_all(self, answers: Sequence[tuple[str | None, Question]]) -> list[Verdict]:
        """Judge many answers, those of a reward at once: it may ask a server."""
        places: dict[int, list[int]] = defaultdict(list)
        for place, (_, question) in enumerate(answers):
            places[_asked(self._of(question))].append(place)
        judged: dict[int, Verdict] = {}
        for of in places.values():
            judged |= zip(of, verdicts_of(self._of(answers[of[0]][1]), [answers[place] for place in of]))
        return [judged[place] for place in range(len(answers))]

    def counts(self) -> dict[str, float]:
        """What the rewards count of themselves, summed up."""
        total: dict[str, float] = defaultdict(float)
        for reward in {_asked(reward): reward for reward in (*self.rewards.values(), self.otherwise)}.values():
            for name, count in counts_of(reward).items():
                total[name] += count
        return dict(total)

    def _of(self, question: Question) -> Reward:
        return self.rewards.get(question.source, self.otherwise)

    def check(self, names: Collection[str]) -> None:
        """Raises UserError for a reward whose source is not among the names: it would judge nothing."""
        if unknown := [name for name in self.rewards if name not in names]:
            there = ", ".join(sorted(names)) or "none, which takes mgpo.data.Mixture"
            raise UserError(f"model.reward: no source is called {unknown[0]!r}; the names in data are: {there}")


def _asked(reward: Reward) -> int:
    """What tells rewards apart: one that is asked by name is another object wherever it stands."""
    return id(reward.given if isinstance(reward, ByName) else reward)
