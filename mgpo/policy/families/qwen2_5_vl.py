"""Qwen2.5-VL as a policy, in all its sizes; a tiny one ships with the package."""

from pathlib import Path
from typing import Any

from torch import Tensor
from transformers import Cache

from mgpo.images.views import Frame
from mgpo.policy.families.qwen import QwenVL
from mgpo.policy.passes.packing import Packing

EMBEDDED = "embedded"


class Qwen25VL(QwenVL):
    """Qwen2.5-VL: absolute pixels of the resized input, mRoPE positions, windowed vision attention.

    Args:
        path: A checkpoint folder or hub name; "embedded" is the small model that ships with the package.
        max_pixels: Cap on the pixels of every image that is shown (paper: 1280 · 28 · 28).
        min_pixels: Floor on the pixels of every image that is shown (paper: 256 · 28 · 28).
    """

    model_types = ("qwen2_5_vl",)
    frame = published_frame = Frame.PIXELS
    video_processor = "Qwen2VLVideoProcessor"
    packs = fixed = True

    def __init__(
        self,
        path: str = EMBEDDED,
        max_pixels: int = 1280 * 28 * 28,
        min_pixels: int = 256 * 28 * 28,
        **options: Any,
    ) -> None:
        if path == EMBEDDED:
            path = str(Path(__file__).parents[2] / "world" / "weights")
        super().__init__(path, max_pixels, min_pixels, **options)

    def decode(
        self,
        ids: Tensor,
        features: Tensor | None,
        positions: Tensor,
        mask: Tensor | None,
        cache: Cache | None,
        packing: Packing | None = None,
    ) -> Tensor:
        """Final hidden states (rows, tokens, width); `cache` grows by these tokens."""
        embeddings = self.embed(ids, features, counted=packing is not None)  # by `predicting`, on the host
        return self.run(embeddings, positions, {"full_attention": mask}, cache, packing=packing)
