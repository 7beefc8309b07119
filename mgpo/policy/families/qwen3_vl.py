"""Qwen3-VL as a policy, dense and mixture of experts."""

from typing import Any

import torch
from torch import Tensor
from transformers import Cache

from mgpo.images.views import Frame
from mgpo.policy.families.qwen import QwenVL
from mgpo.policy.passes.packing import Packing


class Qwen3VL(QwenVL):
    """Qwen3-VL: coordinates from 0 to 1000, interleaved mRoPE, and DeepStack.

    The early decoder layers too are given features of the image tokens, from the middle of the vision
    tower (DeepStack, arXiv 2406.04334): they lie side by side with the embeddings' along the width.
    """

    model_types = ("qwen3_vl", "qwen3_vl_moe")
    frame = published_frame = Frame.THOUSAND
    video_processor = "Qwen3VLVideoProcessor"
    packs = True

    @property
    def fixed(self) -> bool:
        """Which experts are called depends on the tokens."""
        return self.model.config.model_type == "qwen3_vl"

    def merged(self, seen: Any) -> Tensor:
        """The features (merged tokens, (1 + deep layers) · width): the last layer's, then those of layers before."""
        return torch.cat([seen.pooler_output, *seen.deepstack_features], -1)

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
        counted = packing is not None  # by `predicting`, on the host
        if features is None or not len(features):
            return self.run(self.embed(ids, features, counted), positions, mask, cache, packing=packing)
        first, *deep = features.split(self.model.config.text_config.hidden_size, -1)
        places = ids == self.chat.image_id
        return self.run(
            self.embed(ids, first, counted), positions, mask, cache, packing=packing, visual_pos_masks=places,
            deepstack_visual_embeds=deep,
        )  # fmt: skip
