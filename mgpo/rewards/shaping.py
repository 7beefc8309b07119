"""Additions to the reward. None is part of the published method; each is a class path in `model.shaping`."""

import warnings
from abc import abstractmethod
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from mgpo.answers import extract
from mgpo.errors import UserError
from mgpo.images.boxes import box_candidates, number_lists
from mgpo.rewards.correctness import float_of
from mgpo.types import Trajectory
from mgpo.utils.atomic_files import parse_json
from mgpo.utils.interface import Interface
from mgpo.utils.own_code import blaming


class Shaping(Interface):
    """Adds to the reward of a trajectory whose answer has been judged."""

    @abstractmethod
    def __call__(self, trajectory: Trajectory) -> float: ...


def added(shaping: Sequence[Shaping], trajectory: Trajectory) -> float:
    """What all of them add. Raises UserError where one fails, or gives no number."""
    total = 0.0
    for each in shaping:
        name = getattr(each, "__name__", type(each).__name__)
        with blaming(f"the shaping {name}, asked about question {trajectory.question.id},"):
            total += float_of(each(trajectory))
    return total


class Format:
    r"""Adds `weight` where the last reply holds one `\boxed{}`, and every other one the shape of a box."""

    def __init__(self, weight: float = 0.1) -> None:
        self.weight = weight

    def __call__(self, trajectory: Trajectory) -> float:
        *looks, last = [turn.said for turn in trajectory.turns]
        shaped = all(box_candidates(text) != [] for text in looks)
        return self.weight * (shaped and last.count("\\boxed{") == 1 and extract(last) is not None)


class TurnCost:
    """Takes `cost` off a right answer for every reply before the last: looking is worth it only where it is needed."""

    def __init__(self, cost: float = 0.1) -> None:
        self.cost = cost

    def __call__(self, trajectory: Trajectory) -> float:
        return -self.cost * (len(trajectory.turns) - 1) if trajectory.right else 0.0


class MatchedPoints:
    """For the counting experiment only: adds `weight` times the F1 of the points that the policy named.

    Named and annotated points no farther apart than `radius` are matched one to one, as many of them as can be.
    This reads ANNOTATED PLACES, which the method does without; it warns when it is made.

    Args:
        path: A JSON file that maps question ids to lists of [x, y] in pixels of the original.
        radius: Farthest distance of a match, as a share of the original's diagonal.
        weight: Of the F1 in the reward.
    """

    def __init__(self, path: str, radius: float = 0.05, weight: float = 0.5) -> None:
        warnings.warn(
            "MatchedPoints learns from annotated points: this is not learning from answers alone", stacklevel=2
        )
        self.path, self.radius, self.weight = path, radius, weight
        try:
            self.points = {str(key): _points(value) for key, value in _load(path).items()}
        except (OSError, ValueError, TypeError) as error:
            raise UserError(f'{path}: a JSON object {{"question id": [[x, y], …]}} is needed ({error})') from None

    def __call__(self, trajectory: Trajectory) -> float:
        if trajectory.question.id not in self.points:
            raise UserError(f"{self.path}: no points for question {trajectory.question.id}; add them, or leave it out")
        view = trajectory.views[0]
        named = [n for turn in trajectory.turns for n in number_lists(turn.said) if len(n) == 2]
        seen = [trajectory.frame.to_pixels((x, y, x, y), view.size) for x, y in named]
        places = np.array([view.to_original(point)[:2] for point in seen]).reshape(-1, 2)
        radius = self.radius * float(np.hypot(*trajectory.image.size))
        return self.weight * matched_f1(places, self.points[trajectory.question.id], radius)


def matched_f1(named: np.ndarray, right: np.ndarray, radius: float) -> float:
    """F1 of two sets of points, (n, 2) and (m, 2), matched one to one; 1 where both are empty."""
    if not len(named) and not len(right):
        return 1.0
    near = np.linalg.norm(named[:, None] - right[None], axis=-1) <= radius
    return 2 * most_pairs(near) / (len(named) + len(right))


def most_pairs(allowed: np.ndarray) -> int:
    """How many rows of a table of booleans can each have an allowed column of their own, by augmenting paths."""
    allowed = min(allowed, allowed.T, key=len)  # paths begin at the rows
    row_of = np.full(allowed.shape[1], -1)  # by column
    for start in range(len(allowed)):
        before = np.full(allowed.shape[1], -2)  # by column, the one whose row would move to it; -1 for `start` itself
        waiting = [(start, -1)]
        for row, column in waiting:
            reached = allowed[row] & (before == -2)
            before[reached] = column
            free = np.flatnonzero(reached & (row_of < 0))
            if len(free):
                column = free[0]
                while column >= 0:  # each on the way moves on by one
                    row_of[column] = row_of[before[column]] if before[column] >= 0 else start
                    column = before[column]
                break
            waiting += [(row_of[other], other) for other in np.flatnonzero(reached)]
    return int((row_of >= 0).sum())


def _points(value: list) -> np.ndarray:
    points = np.array(value, float)
    if points.size and (points.ndim != 2 or points.shape[1] != 2):
        raise ValueError(f"{str(value)[:60]} is no list of points")
    return points.reshape(-1, 2)


def _load(path: str) -> dict:
    points = parse_json(Path(path).read_bytes())
    if not isinstance(points, dict):
        raise ValueError("it holds no object")
    return points
