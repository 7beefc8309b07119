"""What the Qwen vision-language families share: a pixel budget, patches, mRoPE positions, ChatML."""

from collections.abc import Sequence
from typing import Any, ClassVar, cast

import torch
from PIL import Image
from torch import Tensor
from transformers import PreTrainedTokenizerBase
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

from mgpo.images.views import Frame, Size, VisionResolution
from mgpo.policy.families.qwen_pixels import Patcher, PixelBudget
from mgpo.policy.packed_layers import use_pieces
from mgpo.policy.passes.positions import mrope
from mgpo.policy.pretrained import Pretrained
from mgpo.types import Pixels, Prompt
from mgpo.utils.allocator import joined
from mgpo.utils.least_values import at_least


class QwenVL(Pretrained):
    """A Qwen vision-language model; see its families.

    Args:
        path: A checkpoint folder or hub name.
        max_pixels: Cap on the pixels of every image that is shown; the checkpoint's own unless given.
        min_pixels: Floor on the pixels of every image that is shown; the checkpoint's own unless given.
        crop_max_pixels: Cap for sub-images where it differs from `max_pixels`.
    """

    frame: ClassVar[Frame]  # of the policy; said anew in `published_frame`, so that a slip in one of them shows
    processor_class = Qwen2VLImageProcessorPil
    slot = image_token = "<|image_pad|>"
    marks = ("<|im_start|>", "<|im_end|>", "<|vision_start|>", "<|vision_end|>")

    def __init__(
        self,
        path: str,
        max_pixels: int | None = None,
        min_pixels: int | None = None,
        crop_max_pixels: int | None = None,
        **options: Any,
    ) -> None:
        super().__init__(path, **options)
        at_least("policy", max_pixels=max_pixels, min_pixels=min_pixels, crop_max_pixels=crop_max_pixels)
        self.min_pixels, self.max_pixels, self.crop_max_pixels = min_pixels, max_pixels, crop_max_pixels

    def attach(self, model: Any, tokenizer: PreTrainedTokenizerBase, processor: Any) -> None:
        """Take a model that is already in memory."""
        super().attach(model, tokenizer, processor)
        use_pieces(model.model.visual)

    def resolution_of(self, processor: Qwen2VLImageProcessorPil) -> VisionResolution:
        """Sides in multiples of a merged patch, areas between floor and cap."""
        self.patcher = Patcher(processor)
        factor = self.patcher.patch * self.patcher.merge
        high = self.max_pixels or processor.size["longest_edge"]
        low = min(self.min_pixels or processor.size["shortest_edge"], high)
        crop_high = self.crop_max_pixels or high
        return VisionResolution(
            self.frame, PixelBudget(low, high, factor), PixelBudget(min(low, crop_high), crop_high, factor)
        )

    def pixels(self, shown: Image.Image) -> Pixels:
        """The patches of an image that has the size at which the model is to see it."""
        return self.patcher(shown)

    def blank(self, size: Size) -> Pixels:
        """The grid of an image that is seen at this size, and patches without values."""
        width, height = (side // self.patcher.patch for side in size)
        return Pixels(torch.empty(height * width, 0), (1, height, width))

    def expand(self, image: Pixels) -> str:
        """One placeholder for each merged patch."""
        return self.image_token * (len(image.patches) // self.patcher.merge**2)

    def positions(self, prompt: Prompt, start: int) -> tuple[Tensor, int]:
        """Rotary positions (3, tokens) of a piece that begins at `start`, and the position behind it."""
        return mrope(prompt, start, self.chat.image_id, self.patcher.merge)

    def tower(self, images: Sequence[Pixels]) -> Sequence[Tensor]:
        """Of each image its features (merged tokens, width)."""
        grid = torch.tensor([image.grid for image in images], device=self.device)
        patches = joined([self.patcher.still(image) for image in images], self.device, self.model.dtype).flatten(1)
        seen = self.merged(self.model.model.visual(patches, grid_thw=grid))
        return seen.split([len(image.patches) // self.patcher.merge**2 for image in images])

    def stock_inputs(self, images: Sequence[Pixels], places: Tensor) -> dict[str, Tensor]:
        """Patches side by side, with their grids."""
        kinds = dict(mm_token_type_ids=places.int())
        if not images:
            return kinds
        patches = torch.cat([image.patches.to(self.device) for image in images])
        grid = torch.tensor([image.grid for image in images], device=self.device)
        return dict(pixel_values=patches, image_grid_thw=grid) | kinds

    def saved_options(self) -> dict[str, Any]:
        """The pixel budgets."""
        whole, crop = cast(PixelBudget, self.resolution.full), cast(PixelBudget, self.resolution.crop)
        return {"max_pixels": whole.max_pixels, "min_pixels": whole.min_pixels, "crop_max_pixels": crop.max_pixels}

    def saved_processor(self) -> Any:
        """With the pixel budget, whose floor is that of crops where theirs is lower."""
        whole, crop = cast(PixelBudget, self.resolution.full), cast(PixelBudget, self.resolution.crop)
        processor = super().saved_processor()
        lowest = min(whole.min_pixels, crop.min_pixels)
        processor.size = {"shortest_edge": lowest, "longest_edge": whole.max_pixels}
        return processor

    def merged(self, seen: Any) -> Tensor:
        """The features (merged tokens, width) among what the vision tower returns."""
        return seen.pooler_output
