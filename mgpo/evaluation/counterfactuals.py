"""Is it the crop? The same questions answered again with something else in its place, or without any tool."""

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

from mgpo.dialogues import Dialogue, answer_only
from mgpo.evaluation.swaps import black, original, random_region
from mgpo.metrics import CROP, NO_TOOLS
from mgpo.metrics.intervals import RESAMPLES, paired_bootstrap
from mgpo.rewards import Reward
from mgpo.rollout.crops import Swap
from mgpo.rollout.episodes import Play, judge
from mgpo.rollout.in_process import Sampling
from mgpo.types import Asked, Trajectory

SWAPS: dict[str, Swap] = {"black": black, "random region": random_region, "original": original}
Row = dict[str, Any]  # id, split, category, and by variant whether the answer was right


def counterfactuals(
    play: Play,
    dialogue: Dialogue,
    samples: Sequence[Asked],
    sampling: Sampling,
    reward: Reward,
    seed: int,
) -> list[Row]:
    """One row a question that could be played in all variants."""
    played = play(dialogue, samples, 1, sampling, (seed, 0))
    variants = {CROP: played}
    for name, swap in SWAPS.items():
        variants[name] = answered_again(play, dialogue, played, [swap] * len(played), sampling, (seed, 0))
    variants[NO_TOOLS] = play(answer_only(), samples, 1, sampling, (seed, 0))
    rows: list[Row] = [{"id": q.id, "split": q.split, "category": q.category} for q, *_ in samples]
    whole = [True] * len(rows)
    for name, trajectories in variants.items():
        judge(trajectories, reward)
        for i, trajectory in enumerate(trajectories):
            rows[i][name] = trajectory.right
            whole[i] = whole[i] and trajectory.failed is None
    return [row for row, played_whole in zip(rows, whole) if played_whole]


def answered_again(
    play: Play,
    dialogue: Dialogue,
    played: Sequence[Trajectory],
    swaps: Sequence[Swap | None],
    sampling: Sampling,
    key: tuple[int, ...],
) -> list[Trajectory]:
    """The same episodes with something else in place of every crop; those without a crop as they are.

    Replies up to the first crop are taken as they were, so that the crop is all that differs.

    Args:
        play: Plays the rest.
        dialogue: In which the episodes were played.
        played: The episodes, one a question.
        swaps: What is shown instead, for each of them; without one the crop.
        sampling: How the replies behind the first crop are drawn.
        key: That of the episodes.
    """
    groups: dict[int, list[int]] = defaultdict(list)  # by the number of replies up to the first crop
    for i, trajectory in enumerate(played):
        if trajectory.failed is None and trajectory.crops:
            groups[before_crop(trajectory)].append(i)
    again = list(played)
    for replies, rows in groups.items():
        samples = [played[i].asked for i in rows]
        begun = [played[i].turns[:replies] for i in rows]
        found = play(dialogue, samples, 1, sampling, key, swap=[swaps[i] for i in rows], begun=begun)
        for i, trajectory in zip(rows, found, strict=True):
            again[i] = trajectory
    return again


def before_crop(trajectory: Trajectory) -> int:
    """How many replies come before the first crop; 0 where the dialogue does not tell."""
    return next((number for number, turn in enumerate(trajectory.turns, start=1) if turn.action == "look"), 0)


def compare(
    rows: Sequence[Row], names: Sequence[str] = (CROP, *SWAPS, NO_TOOLS), resamples: int = RESAMPLES
) -> dict[str, dict[str, Any]]:
    """By variant: accuracy, the paired drop from the crop's with a bootstrap interval, and who gained or lost.

    `gain` counts questions that are right only with the crop, `harm` those right only without it. A variant is
    compared on the questions that have it; without any its numbers are None.
    """
    table: dict[str, dict[str, Any]] = {}
    for name in names:
        having = [row for row in rows if row.get(name) is not None]
        differences = [int(row[CROP]) - int(row[name]) for row in having]
        n = len(having)
        table[name] = {
            "n": n,
            "accuracy": sum(row[name] for row in having) / n if n else None,
            "drop": sum(differences) / n if n else None,
            "drop_interval": paired_bootstrap(differences, resamples) if n else None,
            "gain": differences.count(1),
            "harm": differences.count(-1),
        }
    return table
