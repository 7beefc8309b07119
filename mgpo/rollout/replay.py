"""A rollout that was logged, played again: the same dialogue and crops, and every reply known beforehand."""

from collections.abc import Iterator, Sequence
from dataclasses import replace

from mgpo.dialogues import Dialogue
from mgpo.policy.base import Policy
from mgpo.rewards import Reward
from mgpo.rollout.episodes import judge, roll_out
from mgpo.rollout.in_process import Sampling
from mgpo.types import Asked, Prompt, Reply, SavedRollout, Trajectory

Replies = tuple[Reply, ...]


def play_again(
    policy: Policy,
    dialogue: Dialogue,
    samples: Sequence[Asked],
    reward: Reward,
    sampling: Sampling,
) -> list[Trajectory]:
    """A judged trajectory for each (question, original image, …), whose replies are those of `question.imitated`.

    Where that can't be what was logged, `failed` says why: another prompt, other turns, ids that can't have been
    sampled, or an answer that is not right here.
    """
    end = Reply((policy.chat.end_id,), (0.0,), "end")
    found = [_replies(policy, question.imitated, sampling.max_new_tokens) for question, *_ in samples]
    known = [() if isinstance(replies, str) else replies for replies in found]
    bare = [(replace(question, imitated=None), *images) for question, *images in samples]
    trajectories = roll_out(policy, Replayer(known, end), dialogue, bare, copies=1, sampling=sampling, key=())
    judge(trajectories, reward)
    for (question, *_), trajectory, replies in zip(samples, trajectories, found, strict=True):
        if trajectory.failed is None:
            trajectory.failed = replies if isinstance(replies, str) else _difference(trajectory, question.imitated)
    return trajectories


def _replies(policy: Policy, rollout: SavedRollout | None, longest: int) -> Replies | str:
    """The replies of a rollout, or why they are none that this policy could have given."""
    if rollout is None:
        return "it comes without a rollout to imitate, unlike others of its batch"
    for ids in rollout.ids:
        if len(ids) > longest:
            return f"a logged reply has {len(ids):,} tokens; sampling.max_new_tokens allows {longest:,}"
        if not all(0 <= i < len(policy.banned) for i in ids) or policy.banned[list(ids)].any():
            return "its logged ids are none that this policy samples: they are another tokenizer's"
    return tuple(Reply(ids, (0.0,) * len(ids), stop) for ids, stop in zip(rollout.ids, rollout.stops, strict=True))


def _difference(trajectory: Trajectory, rollout: SavedRollout | None) -> str | None:
    """Why a trajectory is not the rollout that was logged; None where it is."""
    if rollout is None or trajectory.turns[0].prompt.hash != rollout.prompt_hash:
        return "its first prompt is not the logged one: the dialogue, the pixel caps or the tokenizer differ"
    if len(trajectory.turns) != len(rollout.ids):
        return f"it has {len(trajectory.turns)} turns here, and {len(rollout.ids)} in the log: the dialogues differ"
    if not trajectory.right:
        return f"its logged answer, {str(trajectory.answer)[:40]!r}, is not right here"
    return None


class Replayer:
    """A sampler that draws nothing: the replies of every conversation are given, a row each.

    Args:
        rows: The replies of each, in order.
        end: The reply of one that goes on behind its last.
    """

    exact = False  # no weights are needed

    def __init__(self, rows: Sequence[Replies], end: Reply) -> None:
        self.rows, self.end = rows, end

    def open(self, policy: Policy, prompts: Sequence[Prompt], copies: int) -> "Recording":
        """Begin all of the conversations. Raises ValueError where there are not as many as rows."""
        if len(prompts) * copies != len(self.rows):
            raise ValueError(f"{len(prompts) * copies} conversations, but the replies of {len(self.rows)}")
        return Recording(self.rows, self.end)


class Recording:
    """Open conversations in which it is known what will be said."""

    def __init__(self, rows: Sequence[Replies], end: Reply) -> None:
        self.rows, self.end, self.turn = list(rows), end, 0

    def reply(
        self, seeds: Sequence[int], sampling: Sampling, stop_text: str | None = None
    ) -> Iterator[tuple[int, Reply]]:
        """Each row with its reply in this turn."""
        for row, replies in enumerate(self.rows):
            yield row, replies[self.turn] if self.turn < len(replies) else self.end
        self.turn += 1

    def take(self, replies: Sequence[Reply]) -> None:
        """What is said instead changes nothing."""
        self.turn += 1

    def extend(self, prompts: Sequence[Prompt]) -> None:
        """What is shown changes nothing."""

    def keep(self, rows: Sequence[int]) -> None:
        """Go on with these rows."""
        self.rows = [self.rows[row] for row in rows]

    def begin(self, prompts: Sequence[Prompt], rows: Sequence[int]) -> "Recording":
        """New conversations, in which these rows say what comes next of theirs."""
        begun = Recording([self.rows[row] for row in rows], self.end)
        begun.turn = self.turn
        return begun
