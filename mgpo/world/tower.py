"""Stage 1 of pretraining: the vision tower alone, under linear heads on every merged token.

Learnt only through the language loss, a tiny tower begins neither to read nor to locate. Here each
token that holds a mark's centre predicts the mark's colour and, on whole pictures, its place in the
picture; on crops what it bears. The heads are thrown away.
"""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, IterableDataset
from transformers import Qwen2VLImageProcessorPil

from mgpo.policy.families.qwen_pixels import Patcher
from mgpo.world.handwriting import DIGITS
from mgpo.world.questions import style_of
from mgpo.world.scenes import COLOURS, DOTS, LETTERS, TRAIN, Mark, Scene, Style, draw, sample_content, sample_scene

NAMES = list(COLOURS)
FACTOR = 28
BINS = 56


def contents(handwritten: bool) -> str:
    """All that marks can bear."""
    return DIGITS if handwritten else LETTERS + DOTS


def shrink(scene: Scene, side: int, region: tuple[float, float, float, float] = (0, 0, 1, 1)) -> Image.Image:
    """A square region of a scene at `side` pixels, drawn at four times that and resized, as a photograph would be."""
    return draw(scene, 4 * side, region).resize((side, side), Image.Resampling.BICUBIC)


def square_around(x: float, y: float, half: float) -> tuple[float, float, float, float]:
    """The square of half-side `half` around a place, moved inside the picture."""
    x, y = (min(max(v, half), 1 - half) for v in (x, y))
    return (x - half, y - half, x + half, y + half)


def sample_sheet(rng: np.random.Generator, spread: float, style: Style = TRAIN) -> Scene:
    """Nine marks as large as in a crop, one around the middle of each token, up to `spread` of a token aside.

    Reading begins here: with letters at fixed places a tower reads after seconds, with letters anywhere after hours.
    """
    marks = []
    for row in range(3):
        for column in range(3):
            x, y = (np.array([column, row]) + 0.5 + rng.uniform(-0.5, 0.5, 2) * spread) / 3
            radius = rng.uniform(*style.radius) / rng.uniform(0.26, 0.34)
            bears, image = sample_content(rng, style)
            ink = 2 * radius * rng.uniform(*style.ink)
            marks.append(Mark(str(rng.choice(NAMES)), bears, float(x), float(y), float(radius), float(ink), image))
    ground = sample_scene(rng, style)
    return Scene(tuple(marks[i] for i in rng.permutation(9)), ground.corners, ())


def label(scene: Scene, side: int, region: tuple[float, float, float, float], read: bool) -> torch.Tensor:
    """The labels (tokens, 4) of a region's image tokens: colour, content, x bin and y bin of the mark centred in each.

    -100 where there is none. What a mark bears is asked for only where it can be `read`.
    """
    across = side // FACTOR
    labels = torch.full((across, across, 4), -100)
    x1, y1, x2, y2 = region
    for mark in scene.marks:
        u, v = (mark.x - x1) / (x2 - x1), (mark.y - y1) / (y2 - y1)
        if not (0 <= u < 1 and 0 <= v < 1):
            continue
        ink = mark.ink / (x2 - x1) / 2
        whole = ink < u < 1 - ink and ink < v < 1 - ink
        content = contents(mark.image is not None).index(mark.bears) if whole and read else -100
        values = [NAMES.index(mark.colour), content, int(u * BINS), int(v * BINS)]
        labels[int(v * across), int(u * across)] = torch.tensor(values)
    return labels.view(-1, 4)


class Pictures(IterableDataset):
    """A stream of `steps` batches (patches, grid, labels): scenes, crops, and sheets whose marks drift apart."""

    def __init__(self, steps: int, seed: int, view: int, crop: int, batch: int, handwritten: bool = False) -> None:
        self.steps, self.seed, self.view, self.crop, self.batch = steps, seed, view, crop, batch
        self.style, self.large = (style_of("train", size, handwritten) for size in ("small", "large"))
        self.patcher = Patcher(Qwen2VLImageProcessorPil())

    def __iter__(self) -> Iterator[tuple[torch.Tensor, torch.Tensor, torch.Tensor]]:
        torch.set_num_threads(1)
        rng = np.random.default_rng(self.seed)
        whole = (0.0, 0.0, 1.0, 1.0)
        for step in range(self.steps):
            spread = min(0.8, max(0.0, 4 * step / self.steps - 0.2))
            drawn = []
            for _ in range(self.batch):
                scene = sample_scene(rng, self.style, pair=rng.random() < 0.3)
                if rng.random() < 0.5:
                    drawn.append((scene, self.view, whole, False))
                if rng.random() < 0.2:
                    drawn.append((sample_scene(rng, self.large), self.view, whole, True))
                for mark in rng.permutation(np.array(scene.marks, dtype=object))[:2]:
                    x, y = np.array([mark.x, mark.y]) + rng.uniform(-0.08, 0.08, 2)
                    drawn.append((scene, self.crop, square_around(x, y, rng.uniform(0.13, 0.17)), True))
                drawn.append((sample_sheet(rng, spread, self.style), self.crop, whole, True))
            pixels = torch.cat([self.patcher(shrink(*shown)).patches for *shown, _ in drawn])
            grids = torch.tensor([[1, side // 14, side // 14] for _, side, _, _ in drawn])
            yield pixels, grids, torch.cat([label(*item) for item in drawn])


def train_tower(
    tower: Any,
    steps: int,
    batch: int,
    view: int,
    crop: int,
    lr: float,
    seed: int,
    log: Callable[[str], None],
    handwritten: bool = False,
) -> None:
    """Train the tower in place; logs the accuracy of each head."""
    width = tower.config.out_hidden_size
    heads = nn.ModuleList([nn.Linear(width, n) for n in (len(NAMES), len(contents(handwritten)), BINS, BINS)])
    parameters = [*tower.parameters(), *heads.parameters()]
    optimiser = torch.optim.AdamW(parameters, lr=lr, weight_decay=0.01, betas=(0.9, 0.98))
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, lr, total_steps=steps, pct_start=0.05)
    pictures = Pictures(steps, seed, view, crop, batch, handwritten)
    stream = DataLoader(pictures, batch_size=None, num_workers=1, prefetch_factor=4)
    right, seen = torch.zeros(4), torch.zeros(4)
    for step, (pixels, grid, labels) in enumerate(stream):
        features = tower(pixels, grid_thw=grid).pooler_output
        losses = []
        for i, head in enumerate(heads):
            known = labels[:, i] >= 0
            logits = head(features[known])
            losses.append(F.cross_entropy(logits, labels[known, i]))
            error = (logits.argmax(-1) - labels[known, i]).abs()
            right[i] += (error <= (1 if i > 1 else 0)).sum()
            seen[i] += known.sum()
        loss = losses[0] + 2 * losses[1] + losses[2] + losses[3]
        optimiser.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimiser.step()
        schedule.step()
        if (step + 1) % 100 == 0:
            colour, content, x, y = (right / seen.clamp(min=1)).tolist()
            log(f"tower {step + 1}/{steps}  colour {colour:.3f}  content {content:.3f}  x {x:.3f}  y {y:.3f}")
            right.zero_()
            seen.zero_()
