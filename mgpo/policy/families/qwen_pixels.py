"""Images as the Qwen vision towers take them: a size inside the pixel budget, then normalised patches."""

from dataclasses import dataclass
from math import ceil

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil, smart_resize

from mgpo.images.views import Size
from mgpo.types import Pixels


@dataclass(frozen=True)
class PixelBudget:
    """The family's own resize rule: sides are multiples of `factor`, the area lies between floor and cap, in pixels."""

    min_pixels: int
    max_pixels: int
    factor: int

    def __call__(self, size: Size) -> Size:
        width, height = size
        # The library's rule refuses more than 1:200; the thinner side of such a strip is taken as wider than it is.
        width, height = max(width, ceil(height / 200)), max(height, ceil(width / 200))
        height, width = smart_resize(height, width, self.factor, self.min_pixels, self.max_pixels)
        return (width, height)


class Patcher:
    """Cuts an image of fitting size into patches, with the figures of a checkpoint's own image processor.

    Equal to the library's processor with resizing off, without its cost per call.
    """

    def __init__(self, processor: Qwen2VLImageProcessorPil) -> None:
        self.patch, self.merge = processor.patch_size, processor.merge_size
        self.frames = processor.temporal_patch_size
        mean, std = (
            torch.tensor(v, dtype=torch.float32, device="cpu").view(3, 1, 1)  # where images are, whatever the default
            for v in (processor.image_mean, processor.image_std)
        )
        self.scale, self.offset = processor.rescale_factor / std, mean / std

    def __call__(self, image: Image.Image) -> Pixels:
        pixels = torch.from_numpy(np.array(image))
        height, width = (side // self.patch for side in pixels.shape[:2])
        blocks = pixels.view(
            height // self.merge, self.merge, self.patch, width // self.merge, self.merge, self.patch, 3
        ).permute(0, 3, 1, 4, 6, 2, 5)  # while they are bytes
        blocks = blocks.to(torch.float32, memory_format=torch.contiguous_format).mul_(self.scale).sub_(self.offset)
        frames = blocks.unsqueeze(5).expand(*blocks.shape[:5], self.frames, self.patch, self.patch)
        return Pixels(frames.reshape(height * width, -1), (1, height, width))

    def still(self, image: Pixels) -> Tensor:
        """The first of an image's frames, which are all the same: a view (patches, colours, values)."""
        return image.patches.unflatten(1, (3, self.frames, -1))[:, :, 0]
