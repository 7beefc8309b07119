"""What makes a model a base: it reads what it sees, and rarely says well where to look. Measured, not believed."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
from PIL import Image

from mgpo.data.scenes import SPLITS, Scenes
from mgpo.dialogues import Dialogue, SingleTurn, TwoTurn, answer_only
from mgpo.images.boxes import BoxRule
from mgpo.images.views import View
from mgpo.policy.base import Policy
from mgpo.rewards import ExactAnswer
from mgpo.rollout.episodes import judge, roll_out
from mgpo.rollout.in_process import InProcessSampler, Sampling
from mgpo.types import Question
from mgpo.world.questions import HANDWRITTEN_KINDS, KINDS, sample_question
from mgpo.world.teacher import SIDE, Habits, teacher_box

SEED = 1  # of scenes that no configuration evaluates on
TWO_TURN = TwoTurn(rule=BoxRule(min_side=20))  # as in configs/mgpo.yaml
VALID, TWO_TURNS = "valid boxes, sampled", "two turns, greedy"
BOUNDS: dict[str, tuple[float, float]] = {
    VALID: (0.30, 0.60),
    TWO_TURNS: (0.0, 0.55),
    "one turn, greedy": (0.0, 0.20),
    "the right crop read": (0.90, 1.0),
}
# Of digits as high as in a crop, the nearest of the images to train on tells 0.92; letters have one form each.
HANDWRITTEN_BOUNDS = BOUNDS | {"the right crop read": (0.80, 1.0)}
Samples = Sequence[tuple[Question, Image.Image]]


def measure(policy: Policy, questions: int = 128, side: int = 2048, handwritten: bool = False) -> dict[str, float]:
    """The shares that BOUNDS speak of, on validation scenes: of rollouts with a usable box, and of right answers.

    Args:
        policy: A loaded policy in evaluation mode.
        questions: For each share; of the kind attribute but for the first, which is of all kinds.
        side: Pixels of a scene's side.
        handwritten: In the world of handwritten digits.
    """
    kinds = HANDWRITTEN_KINDS if handwritten else KINDS
    attributes, mixed = (
        _samples(Scenes(questions, some, "val", side=side, seed=SEED, handwritten=handwritten))
        for some in (kinds[:1], kinds)
    )
    rollouts = roll_out(policy, InProcessSampler(), TWO_TURN, mixed, 4, Sampling(32), (0, 0))
    valid = sum(t.parsed_box is not None and t.parsed_box.box is not None for t in rollouts) / len(rollouts)
    return {
        VALID: valid,
        TWO_TURNS: _accuracy(policy, TWO_TURN, attributes),
        "one turn, greedy": _accuracy(policy, SingleTurn(), attributes),
        "the right crop read": _reads(policy, attributes, side, handwritten),
    }


def outside(measured: Mapping[str, float], bounds: Mapping[str, tuple[float, float]] = BOUNDS) -> list[str]:
    """A phrase for each share that is not within its bounds."""
    return [
        f"{name} {measured[name]:.2f} (wanted {low:.2f} to {high:.2f})"
        for name, (low, high) in bounds.items()
        if not low <= measured[name] <= high
    ]


def mended(habits: Habits, measured: Mapping[str, float]) -> Habits:
    """The teacher's habits for another round, a few hundredths off those that led to what was measured.

    Greedy decoding that finds a good box wants more tight ones, so that those are likelier. Too few valid boxes want
    wild ones, in place of good and of tight ones: they are valid, and never the likeliest.
    """
    if measured[VALID] < BOUNDS[VALID][0]:
        habits = replace(habits, wild=habits.wild + 0.03, tight=habits.tight - 0.01)
    if measured[TWO_TURNS] > BOUNDS[TWO_TURNS][1]:
        habits = replace(habits, tight=habits.tight + 0.01)
    return habits


def _samples(scenes: Scenes) -> Samples:
    return [(question, question.picture.load()) for question in (scenes[i] for i in range(len(scenes)))]


def _accuracy(policy: Policy, dialogue: Dialogue, samples: Samples, only_crops: bool = False) -> float:
    resolution = replace(policy.resolution, full=policy.resolution.crop) if only_crops else None
    greedy = Sampling(max_new_tokens=40, temperature=0)
    played = roll_out(policy, InProcessSampler(), dialogue, samples, 1, greedy, (0, 0), resolution=resolution)
    judge(played, ExactAnswer())
    return sum(trajectory.right for trajectory in played) / len(played)


def _reads(policy: Policy, attributes: Samples, side: int, handwritten: bool) -> float:
    """The share that is answered right of the part in which a good teacher would look, shown alone."""
    crops = []
    for i, (question, image) in enumerate(attributes):
        seed = (SPLITS["val"], SEED, i)
        _, marks = sample_question(KINDS[0], seed, side, "val", handwritten=handwritten)
        box = teacher_box(marks, SIDE, "good", np.random.default_rng(0))
        first = View.full(image.size, policy.resolution.full)
        crops.append((question, image.crop(first.crop(box, policy.resolution.crop).region)))
    return _accuracy(policy, answer_only(), crops, only_crops=True)
