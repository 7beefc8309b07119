"""Evaluation: greedy episodes, and the question asked again of the sub-image alone."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from PIL import Image

from mgpo.dialogues import Dialogue, answer_only
from mgpo.policy.base import Policy
from mgpo.rewards import Reward
from mgpo.rollout import roll_out
from mgpo.sampler import InProcessSampler, Sampling
from mgpo.types import Question, Trajectory
from mgpo.views import Box


@dataclass(frozen=True)
class Record:
    """How one question went. Boxes are in pixels of the original; no right box is known to anyone."""

    id: str
    split: str
    category: str
    truth: str
    answer: str | None
    right: bool
    turns: int
    valid_box: bool | None  # None where the dialogue asks for no box
    reason: str | None
    box: Box | None
    subimage_right: bool | None  # None where nothing was cut out
    replies: tuple[str, ...]

    def as_row(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


def evaluate(
    policy: Policy,
    sampler: InProcessSampler,
    dialogue: Dialogue,
    samples: Sequence[tuple[Question, Image.Image]],
    sampling: Sampling,
    reward: Reward,
    seed: int,
) -> list[Record]:
    """Play one episode a question, then ask each sub-image alone, at the very size at which it was shown."""
    trajectories = roll_out(policy, sampler, dialogue, samples, 1, sampling, (seed, 0))
    cropped = [t for t in trajectories if crop_region(t) is not None]
    alone: dict[int, bool] = {}
    if cropped:
        seen = replace(policy.sight, whole=policy.sight.crop)
        crops = [(t.question, t.image.crop(crop_region(t))) for t in cropped]
        again = roll_out(policy, sampler, answer_only(), crops, 1, sampling, (seed, 1), sight=seen)
        alone = {id(t): reward(a.answer, t.question) > 0 for t, a in zip(cropped, again)}
    return [_record(t, reward(t.answer, t.question) > 0, alone.get(id(t))) for t in trajectories]


def crop_region(trajectory: Trajectory) -> tuple[int, int, int, int] | None:
    """The first region that was cut out, in pixels of the original; None where there was none."""
    whole = trajectory.views[0].region
    return next((view.region for view in trajectory.views[1:] if view.region != whole), None)


def _record(trajectory: Trajectory, right: bool, subimage_right: bool | None) -> Record:
    question, finding = trajectory.question, trajectory.finding
    box = trajectory.views[0].to_original(finding.box) if finding is not None and finding.box else None
    return Record(
        id=question.id,
        split=question.split,
        category=question.category,
        truth=question.answer,
        answer=trajectory.answer,
        right=right,
        turns=len(trajectory.turns),
        valid_box=None if finding is None else finding.box is not None,
        reason=None if finding is None else finding.reason,
        box=box,
        subimage_right=subimage_right,
        replies=tuple(turn.text for turn in trajectory.turns),
    )
