"""The shape of the embedded model: the real Qwen2.5-VL classes, a million parameters."""

from typing import Any

import torch
from torch import nn
from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration

PATCH, MERGE = 14, 2
# Square scenes are seen at 112 x 112, square crops at 84 x 84, in multiples of a merged token of 28 x 28.
CAPS: dict[str, Any] = {"min_pixels": 28 * 28, "max_pixels": 20 * 28 * 28, "crop_max_pixels": 10 * 28 * 28}


def tiny_config(vocab_size: int, special: dict[str, int]) -> Qwen2_5_VLConfig:
    """The configuration of the embedded model. `special` maps the family's control tokens to their ids."""
    vision = dict(
        depth=3, hidden_size=96, intermediate_size=192, num_heads=3, patch_size=PATCH, spatial_merge_size=MERGE,
        temporal_patch_size=2, out_hidden_size=128, window_size=112, fullatt_block_indexes=[0, 1, 2],
    )  # fmt: skip
    text = dict(
        vocab_size=vocab_size, hidden_size=128, intermediate_size=256, num_hidden_layers=3, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=4096, tie_word_embeddings=True,
        rope_parameters={"rope_type": "default", "rope_theta": 10_000.0, "mrope_section": [6, 5, 5]},
        bos_token_id=None, eos_token_id=special["<|im_end|>"], pad_token_id=special["<|endoftext|>"],
    )  # fmt: skip
    return Qwen2_5_VLConfig(
        vision_config=vision, text_config=text, tie_word_embeddings=True,
        image_token_id=special["<|image_pad|>"], video_token_id=special["<|video_pad|>"],
        vision_start_token_id=special["<|vision_start|>"], vision_end_token_id=special["<|vision_end|>"],
    )  # fmt: skip


def build_tiny(config: Qwen2_5_VLConfig, seed: int = 0) -> Qwen2_5_VLForConditionalGeneration:
    """A fresh model, initialised for its width: the 0.02 of large models leaves a tiny one at the marginal entropy."""
    torch.manual_seed(seed)
    model = Qwen2_5_VLForConditionalGeneration(config)
    for name, parameter in model.named_parameters():
        if "embed_tokens" in name:
            nn.init.normal_(parameter, std=0.1)
        elif parameter.ndim > 1:
            nn.init.normal_(parameter, std=0.7 / parameter[0].numel() ** 0.5)
        elif name.endswith("bias"):
            nn.init.zeros_(parameter)
    return model
