"""Is it the crop? The same questions answered again with something else in its place, or without any tool."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from PIL import Image

from mgpo.dialogues import Dialogue, answer_only
from mgpo.images.views import Original, View
from mgpo.metrics import CROP, NO_TOOLS
from mgpo.metrics.intervals import paired_bootstrap
from mgpo.policy.base import Policy
from mgpo.rewards import Reward
from mgpo.rollout.crops import Swap
from mgpo.rollout.episodes import Sampler, judge, roll_out
from mgpo.rollout.in_process import Sampling
from mgpo.types import Asked


def black(image: Original, view: View, first: View) -> Image.Image:
    """Nothing to be seen, at the crop's size."""
    return Image.new("RGB", view.size)


def random_region(image: Original, view: View, first: View) -> Image.Image:
    """Another region of the same size, seen alike; which one follows from the true region alone."""
    left, top, right, bottom = view.region
    rng = np.random.default_rng(view.region)
    x, y = (int(rng.integers(side - part + 1)) for side, part in zip(image.size, (right - left, bottom - top)))
    return replace(view, region=(x, y, x + right - left, y + bottom - top)).pixels(image)


def original(image: Original, view: View, first: View) -> Image.Image:
    """The whole picture that the part is of once more, as in the first turn."""
    return first.pixels(image)


SWAPS: dict[str, Swap] = {"black": black, "random region": random_region, "original": original}
Row = dict[str, Any]  # id, split, category, and by variant whether the answer was right


def counterfactuals(
    policy: Policy,
    sampler: Sampler,
    dialogue: Dialogue,
    samples: Sequence[Asked],
    sampling: Sampling,
    reward: Reward,
    seed: int,
) -> list[Row]:
    """One row a question that could be played in all variants.

    Greedy replies up to the first crop are the same in all but "no tools".
    """
    variants: dict[str, tuple[Dialogue, Swap | None]] = {CROP: (dialogue, None)}
    variants |= {name: (dialogue, swap) for name, swap in SWAPS.items()} | {NO_TOOLS: (answer_only(), None)}
    rows: list[Row] = [{"id": q.id, "split": q.split, "category": q.category} for q, *_ in samples]
    played = [True] * len(rows)
    for name, (spoken, swap) in variants.items():
        trajectories = roll_out(policy, sampler, spoken, samples, 1, sampling, (seed, 0), swap=swap)
        judge(trajectories, reward)
        for i, trajectory in enumerate(trajectories):
            rows[i][name] = trajectory.right
            played[i] = played[i] and trajectory.failed is None
    return [row for row, whole in zip(rows, played) if whole]


def compare(rows: Sequence[Row]) -> dict[str, dict[str, Any]]:
    """By variant: accuracy, the paired drop from the crop's with a bootstrap interval, and who gained or lost.

    `gain` counts questions that are right only with the crop, `harm` those right only without it.
    """
    table: dict[str, dict[str, Any]] = {}
    for name in (CROP, *SWAPS, NO_TOOLS):
        differences = [int(row[CROP]) - int(row[name]) for row in rows]
        table[name] = {
            "n": len(rows),
            "accuracy": sum(row[name] for row in rows) / max(1, len(rows)),
            "drop": sum(differences) / max(1, len(rows)),
            "drop_interval": paired_bootstrap(differences),
            "gain": differences.count(1),
            "harm": differences.count(-1),
        }
    return table
