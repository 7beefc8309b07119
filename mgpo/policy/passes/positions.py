"""Multi-axis rotary positions (mRoPE) over all turns of a conversation."""

import torch
from torch import Tensor

from mgpo.types import Prompt


def mrope(prompt: Prompt, start: int, image_id: int, merge: int) -> tuple[Tensor, int]:
    """Positions (3, tokens) of a piece of conversation that begins at position `start`, and the next free one.

    Text advances all three axes (time, height, width) by one a token; an image keeps the time and
    spans a grid of merged patches, after which text goes on behind the longer side (Qwen2-VL,
    arXiv 2409.12191, section 2.1).
    """
    pieces: list[Tensor] = []
    text = 0
    images = iter(prompt.images)
    at = 0
    while at < len(prompt.ids):
        if prompt.ids[at] != image_id:
            text, at = text + 1, at + 1
            continue
        if text:
            pieces.append(torch.arange(start, start + text, device="cpu").expand(3, -1))
            start, text = start + text, 0
        frames, height, width = next(images).grid
        height, width = height // merge, width // merge
        sides = (torch.arange(side, device="cpu") for side in (frames, height, width))
        axes = torch.meshgrid(*sides, indexing="ij")
        pieces.append(torch.stack(axes).reshape(3, -1) + start)
        at, start = at + frames * height * width, start + max(height, width)
    if text:
        pieces.append(torch.arange(start, start + text, device="cpu").expand(3, -1))
    return (torch.cat(pieces, 1) if pieces else torch.empty(3, 0, dtype=torch.long, device="cpu")), start + text
