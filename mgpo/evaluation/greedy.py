"""Evaluation: greedy episodes, and the question asked again of the sub-image alone."""

import warnings
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TypeVar

from PIL import Image

from mgpo.dialogues import Dialogue, answer_only
from mgpo.images.decoding import BadImage
from mgpo.images.views import View, VisionResolution
from mgpo.metrics.record import Record, record_of
from mgpo.rewards import Reward
from mgpo.rollout.episodes import Play, judge
from mgpo.rollout.in_process import Sampling
from mgpo.types import Asked, Question, Trajectory
from mgpo.utils.collectives import share_objects

T = TypeVar("T")
LeaveOut = Callable[[Question, str], None]  # is told of a question that could not be played, and why


def warn_left_out(question: Question, why: str) -> None:
    """Warns that a question is left out, and why."""
    warnings.warn(f"left out: question {question.id}, {why}", stacklevel=3)


def assess(
    play: Play,
    resolution: VisionResolution,
    dialogue: Dialogue,
    samples: Sequence[Asked],
    sampling: Sampling,
    reward: Reward,
    seed: int,
    step: int = 0,
    leave_out: LeaveOut = warn_left_out,
) -> list[Record]:
    """Play one episode a question, then ask of each sub-image alone, at the size at which a crop is shown.

    Where the dialogue judges a box without cutting it out, its part is cut out for that question only.
    Episodes that could not be played are left out, which `leave_out` is told.
    """
    played = play(dialogue, samples, 1, sampling, (seed, 0))
    for trajectory in played:
        if trajectory.failed is not None:
            leave_out(trajectory.question, trajectory.failed)
    trajectories = [trajectory for trajectory in played if trajectory.failed is None]
    judge(trajectories, reward)
    alone = asked_alone(play, resolution, trajectories, sampling, reward, seed)
    rights = [again.right if again and again.failed is None else None for again in alone]
    return [record_of(t, right, step) for t, right in zip(trajectories, rights)]


def asked_alone(
    play: Play,
    resolution: VisionResolution,
    trajectories: Sequence[Trajectory],
    sampling: Sampling,
    reward: Reward,
    seed: int,
) -> list[Trajectory | None]:
    """The question of each episode asked of its last part alone, and judged; None where there is no such part.

    The `failed` of one that could not be played says why.
    """
    parts = [named_part(t, resolution) for t in trajectories]
    cut = [(i, crop) for i, part in enumerate(parts) if part and (crop := _cut(trajectories[i], part))]
    again: list[Trajectory | None] = [None] * len(parts)
    if cut:
        seen = replace(resolution, full=resolution.crop)
        samples = [(trajectories[i].question, crop) for i, crop in cut]
        answered = play(answer_only(), samples, 1, sampling, (seed, 1), resolution=seen)
        judge(answered, reward)
        for (i, _), trajectory in zip(cut, answered):
            again[i] = trajectory
    return again


def named_part(trajectory: Trajectory, resolution: VisionResolution) -> View | None:
    """The last part that was cut out, or that of a valid box that never was."""
    if trajectory.crops:
        return trajectory.crops[-1]
    parsed_box = trajectory.parsed_box
    if parsed_box is None or parsed_box.box is None:
        return None
    return trajectory.views[parsed_box.picture].crop(parsed_box.box, resolution.crop)


def _cut(trajectory: Trajectory, part: View) -> Image.Image | None:
    """A part of the original; None, with a warning, where the original can't be decoded any more."""
    try:
        return part.cut(trajectory.original(part))
    except BadImage as error:
        warnings.warn(f"no sub-image: question {trajectory.question.id}, {error}", stacklevel=3)
        return None


def gather(rows: list[T], key: Callable[[T], tuple[str, str]], world_size: int) -> list[T]:
    """The rows of all ranks, each `key` (split, question) once: padding gives some questions to two ranks."""
    return list({key(row): row for part in share_objects(rows, world_size) for row in part}.values())
