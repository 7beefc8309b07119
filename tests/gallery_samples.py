"""Galleries made by hand: rollouts with boxes, crops and replies, without a policy."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from mgpo.boxes import BoxRule, Finding
from mgpo.gallery.data import Gallery
from mgpo.policy.pixels import PixelBudget
from mgpo.types import Prompt, Question, Reply, Trajectory, Turn
from mgpo.views import Box, View

WHOLE, CROP = PixelBudget(28 * 28, 112 * 112, 28), PixelBudget(28 * 28, 84 * 84, 28)
RULE = BoxRule(min_side=6)


def make_trajectory(
    question: Question,
    image: Image.Image,
    box: Box | None,
    answer: str | None,
    reply: str = "",
    rule: BoxRule = RULE,
    whole: PixelBudget = WHOLE,
    crop: PixelBudget = CROP,
) -> Trajectory:
    """A judged rollout of two turns that names a box, in pixels of the first view, and answers."""
    first = View.whole(image.size, whole)
    reason = "no_box" if box is None else rule.refuse(box, first.size)
    finding = Finding(None if reason else box, reason, box)
    asked = f'```json\n[{{"bbox_2d": {[round(v) for v in box]}, "label": "mark"}}]\n```' if box else "I see nothing."
    silence = Reply((1,), (-0.1,), "end")
    turns = [
        Turn(Prompt((1,)), silence, asked, finding, seen=first),
        Turn(Prompt((1,)), silence, reply or f"It reads \\boxed{{{answer}}}."),
    ]
    views = [first, first.crop(finding.box, crop) if finding.box else first]
    right = answer == question.answer
    return Trajectory(question, image, turns, views, answer, right, float(right))


def plain_trajectory(question: Question, image: Image.Image, answer: str) -> Trajectory:
    """A rollout of one turn in which nobody looks for a box."""
    reply = Reply((1,), (-0.1,), "end")
    views = [View.whole(image.size, WHOLE)]
    turns = [Turn(Prompt((1,)), reply, f"\\boxed{{{answer}}}")]
    return Trajectory(question, image, turns, views, answer, answer == question.answer)


def wandering_group(
    question: Question, image: Image.Image, place: tuple[float, float], progress: float, size: int, seed: int
) -> list[Trajectory]:
    """Rollouts whose boxes and answers get nearer to `place` (fractions of the sides) as `progress` goes to 1."""
    rng = np.random.default_rng(seed)
    width, height = WHOLE(image.size)
    group = []
    for _ in range(size):
        near = rng.random() < 0.15 + 0.8 * progress
        spread = 0.03 if near else 0.3
        x, y = (place + rng.normal(0, spread, 2)) * (width, height)
        half = 9 if near or rng.random() < 0.5 else 2
        box = (x - half, y - half, x + half, y + half)
        right = near and rng.random() < 0.85
        group.append(make_trajectory(question, image, box, question.answer if right else "Z"))
    return group


def wandering_gallery(
    asked: Sequence[tuple[Question, Image.Image, tuple[float, float]]], steps: Sequence[int], size: int = 8
) -> Gallery:
    """Groups of all questions at all steps."""
    gallery = Gallery()
    for number, step in enumerate(steps):
        progress = number / max(1, len(steps) - 1)
        groups = [wandering_group(*one, progress, size, 1000 * step + i) for i, one in enumerate(asked)]
        gallery.add(step, [trajectory for group in groups for trajectory in group], size)
    return gallery


def uri(path: Path) -> str:
    return path.resolve().as_uri()
