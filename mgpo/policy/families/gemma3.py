"""Gemma 3 as a policy: square images of one size, whose tokens see each other, and a sliding window."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from transformers import Cache, DynamicCache
from transformers.models.gemma3.image_processing_pil_gemma3 import Gemma3ImageProcessorPil

from mgpo.images.views import Frame, Size, VisionResolution
from mgpo.policy.decoding.row_cache import RowCache, swap_rows, with_room
from mgpo.policy.pretrained import Pretrained
from mgpo.types import Pixels, Prompt
from mgpo.utils.allocator import moved


@dataclass(frozen=True)
class FixedSize:
    """Every image is seen at one size, whatever its shape."""

    size: Size

    def __call__(self, size: Size) -> Size:
        return self.size


class Gemma3(Pretrained):
    """Gemma 3: every image becomes a square with a fixed number of tokens; no panning and scanning.

    It names no frame of its own for boxes; 0 to 1000 is what its larger relatives use, and what the
    prompts here ask for.
    """

    model_types = ("gemma3",)
    processor_class = Gemma3ImageProcessorPil
    slot = "<start_of_image>"
    image_token = "<image_soft_token>"
    marks = ("<start_of_turn>", "<end_of_turn>", "<end_of_image>")
    published_frame = Frame.THOUSAND  # there is none; it is asked for this one

    def resolution_of(self, processor: Gemma3ImageProcessorPil) -> VisionResolution:
        """One size for everything."""
        size = FixedSize((processor.size["width"], processor.size["height"]))
        return VisionResolution(Frame.THOUSAND, size, size)

    def pixels(self, shown: Image.Image) -> Pixels:
        """The normalised image (channels, height, width)."""
        mean, std = (torch.tensor(v, device="cpu") for v in (self.processor.image_mean, self.processor.image_std))
        image = torch.from_numpy(np.array(shown)).float() * self.processor.rescale_factor
        patch = self.model.config.vision_config.patch_size
        return Pixels(((image - mean) / std).permute(2, 0, 1), (1, shown.height // patch, shown.width // patch))

    def blank(self, size: Size) -> Pixels:
        """The grid of an image that is seen at this size, without values."""
        patch = self.model.config.vision_config.patch_size
        return Pixels(torch.empty(0), (1, size[1] // patch, size[0] // patch))

    def expand(self, image: Pixels) -> str:
        """The placeholders between their marks, on lines of their own."""
        return f"\n\n{self.slot}{self.image_token * self.model.config.mm_tokens_per_image}<end_of_image>\n\n"

    def positions(self, prompt: Prompt, start: int) -> tuple[Tensor, int]:
        """Positions (3, tokens) of a piece that begins at `start`, and the position behind it: one a token."""
        end = start + len(prompt.ids)
        return torch.arange(start, end, device="cpu").expand(3, -1), end

    def tower(self, images: Sequence[Pixels]) -> Sequence[Tensor]:
        """Of each image its features (image tokens, width)."""
        stacked = moved(torch.stack([image.patches for image in images]), self.device).to(self.model.dtype)
        return self.model.model.get_image_features(stacked).pooler_output.unbind()

    def stock_inputs(self, images: Sequence[Pixels], places: Tensor) -> dict[str, Tensor]:
        """Whole images."""
        kinds = dict(token_type_ids=places.int())
        if not images:
            return kinds
        stacked = torch.stack([image.patches.to(self.device) for image in images])
        return dict(pixel_values=stacked) | kinds

    def new_cache(self) -> "PlacedCache":
        """Keys and values of all tokens: the window is masked, since a row's holes do not count."""
        return PlacedCache()

    def new_row_cache(self) -> "PlacedRowCache":
        """The same for rollouts."""
        return PlacedRowCache()

    def decode(
        self, ids: Tensor, features: Tensor | None, positions: Tensor, mask: Tensor | None, cache: Cache
    ) -> Tensor:
        """Final hidden states (rows, tokens, width); `cache` grows by these tokens."""
        assert isinstance(cache, PlacedCache | PlacedRowCache)
        place_NT = positions[0]
        place_NS = cache.append(place_NT)
        width = ids.shape[1]
        if mask is None:
            mask = torch.ones(width, width, dtype=torch.bool, device=ids.device).tril().expand(len(ids), 1, -1, -1)
        past, new = mask.split([mask.shape[-1] - width, width], -1)
        mask = torch.cat([past, new | self._same_image(ids)[:, None]], -1)
        window = self.model.config.text_config.sliding_window
        near = place_NT[:, None, :, None] - place_NS[:, None, None, :] < window
        masks = {"full_attention": mask, "sliding_attention": mask & near}
        return self.run(self.embed(ids, features), place_NT, masks, cache)

    def _same_image(self, ids: Tensor) -> Tensor:
        """(rows, tokens, tokens): whether both are placeholders of one image."""
        image_NT = ids == self.chat.image_id
        first_NT = image_NT & ~image_NT.roll(1, 1)
        first_NT[:, 0] = image_NT[:, 0]
        number_NT = first_NT.cumsum(1)
        return (number_NT[:, :, None] == number_NT[:, None, :]) & image_NT[:, :, None] & image_NT[:, None, :]


class PlacedCache(DynamicCache):
    """A key-value cache that knows at which position each of its tokens stands."""

    place_NS: Any = None

    def append(self, place_NT: Tensor) -> Tensor:
        """Take note of where new tokens (N, T) stand, and give where all stand: (N, S + T)."""
        self.place_NS = place_NT if self.place_NS is None else torch.cat([self.place_NS, place_NT], 1)
        return self.place_NS

    def batch_select_indices(self, indices: Tensor) -> None:
        """Keep and repeat these rows, with the positions of their tokens."""
        super().batch_select_indices(indices)
        self.place_NS = self.place_NS[indices]


class PlacedRowCache(RowCache):
    """The same for rollouts."""

    def __init__(self) -> None:
        super().__init__()
        self.places: Any = None
        self.length = 0

    def append(self, place_NT: Tensor) -> Tensor:
        """Take note of where new tokens (N, T) of the first rows stand, and give where all of theirs do: (N, S + T)."""
        rows, new = place_NT.shape
        end = self.length + new
        if self.places is None or end > self.places.shape[1]:
            self.places = with_room(place_NT[:, :0] if self.places is None else self.places, 1, end)
        self.places[:rows, self.length : end] = place_NT
        self.length = end
        return self.places[:rows, :end]

    def select_states(self, rows_N: Tensor) -> None:
        """Keep and repeat these rows, with the positions of their tokens."""
        super().select_states(rows_N)
        self.places = self.places[rows_N]

    def swap_states(self, a: Tensor, b: Tensor) -> None:
        """Exchange rows a[i] and b[i], with the positions of their tokens."""
        super().swap_states(a, b)
        swap_rows(self.places, a, b)
