"""Galleries made by hand: rollouts with boxes, crops and replies, without a policy."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from PIL import Image

from mgpo.gallery.data import Gallery
from mgpo.gallery.page import write_page
from mgpo.images.boxes import BoxRule, ParsedBox
from mgpo.images.views import Box, View
from mgpo.policy.families.qwen_pixels import PixelBudget
from mgpo.types import Prompt, Question, Reply, Trajectory, Turn
from tests.conftest import make_question, noise_image

WHOLE, CROP = PixelBudget(28 * 28, 112 * 112, 28), PixelBudget(28 * 28, 84 * 84, 28)
RULE = BoxRule(min_side=6)
HOSTILE = "</script><img src=x onerror=\"window.broken=1\"><svg onload='window.broken=1'>&lt;b&gt;"


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
    first = View.full(image.size, whole)
    reason = "no_box" if box is None else rule.refuse(box, first.size)
    parsed_box = ParsedBox(None if reason else box, reason, box)
    asked = f'```json\n[{{"bbox_2d": {[round(v) for v in box]}, "label": "mark"}}]\n```' if box else "I see nothing."
    silence = Reply((1,), (-0.1,), "end")
    turns = [
        Turn(Prompt((1,)), silence, asked, parsed_box, seen=first),
        Turn(Prompt((1,)), silence, reply or f"It reads \\boxed{{{answer}}}."),
    ]
    views = [first, first.crop(parsed_box.box, crop) if parsed_box.box else first]
    right = answer == question.answer
    return Trajectory(question, image, turns, views, answer, right, float(right))


def plain_trajectory(question: Question, image: Image.Image, answer: str) -> Trajectory:
    """A rollout of one turn in which nobody looks for a box."""
    reply = Reply((1,), (-0.1,), "end")
    views = [View.full(image.size, WHOLE)]
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


def run_gallery() -> Gallery:
    """Six questions, four rollouts, three steps: rollout r of question q is right from step 10 · (r + q % 2) on."""
    gallery = Gallery()
    images = [noise_image(*size, seed) for seed, size in enumerate([(640, 480), (480, 640), (900, 300)] * 2)]
    for step in (0, 10, 20):
        group = []
        for q, image in enumerate(images):
            question = replace(
                make_question(image, f"q{q}"), category=("colour", "count")[q % 2], split=("val", "ood")[q // 3]
            )
            question = replace(
                question, text=f"What is written on sign number {q}?", choices=("K", "L") if q == 5 else ()
            )
            for r in range(4):
                right = step >= 10 * (r + q % 2)
                corner = 10 + r + step
                box = None if r == 3 and step == 0 else (corner, corner, corner + (20 if right else 3), corner + 20)
                group.append(make_trajectory(question, image, box, "K" if right else "X"))
        gallery.add(step, group, 4)
    return gallery


def once_gallery() -> Gallery:
    gallery = Gallery()
    image = Image.new("RGB", (300, 200), "teal")
    gallery.add(40, [plain_trajectory(make_question(image, f"q{i}"), image, "KX"[i % 2]) for i in range(3)], 1)
    return gallery


def hostile_gallery() -> Gallery:
    gallery = Gallery()
    image = noise_image(200, 200)
    for step in (0, 1):
        question = replace(
            make_question(image, HOSTILE, HOSTILE, (HOSTILE, "b")), text=HOSTILE, category=HOSTILE, split=HOSTILE
        )
        harmless = replace(make_question(image, "other"), category="other")
        group = [make_trajectory(q, image, (20, 20, 50, 50), HOSTILE, HOSTILE) for q in (question, harmless)]
        gallery.add(step, group, 1)
    return gallery


def write_samples(folder: Path) -> dict[str, str]:
    """Addresses of a training run's page, of one that evaluated once, and of one full of hostile texts."""
    galleries = {"run": run_gallery(), "once": once_gallery(), "hostile": hostile_gallery()}
    for name, gallery in galleries.items():
        write_page(folder / f"{name}.html", gallery, HOSTILE if name == "hostile" else f"A {name}")
    return {name: (folder / f"{name}.html").as_uri() for name in galleries}
