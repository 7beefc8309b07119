"""The published sizes of every family, so that they are planned without a hub.

All figures are those of the config.json files on the hub; what is left out is as transformers has it anyway.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from transformers import AutoConfig, PreTrainedConfig

from mgpo.errors import UserError

Settings = dict[str, Any]
# The vision towers of Qwen3-VL and Qwen3.5, by their depth.
TOWERS = {
    12: dict(hidden_size=768, intermediate_size=3072, num_heads=12),
    24: dict(hidden_size=1024, intermediate_size=4096, num_heads=16),
    27: dict(hidden_size=1152, intermediate_size=4304, num_heads=16),
}
DEEPSTACK = {24: [5, 11, 17], 27: [8, 16, 24]}  # layers of a tower whose features go to the decoder's first layers


@dataclass(frozen=True, eq=False)
class Family:
    """The published models of one family.

    Args:
        name: What the family is called.
        model_types: As in a policy's class.
        repository: A pattern of its models' names on the hub, with a group for the size.
        rows: By size the arguments of `make`.
        make: Makes a configuration.
    """

    name: str
    model_types: tuple[str, ...]
    repository: str
    rows: dict[str, tuple]
    make: Callable[..., PreTrainedConfig]

    @property
    def sizes(self) -> tuple[str, ...]:
        """All sizes that are known."""
        return tuple(self.rows)

    def config(self, size: str) -> PreTrainedConfig:
        """The configuration of a size."""
        return self.make(*self.rows[size])


def family_of(policy: Any) -> Family | None:
    """The family of a policy, if its published sizes are known."""
    kinds = set(getattr(policy, "model_types", ()))
    return next((family for family in FAMILIES if kinds & set(family.model_types)), None)


def published_for(policy: Any, size: str) -> PreTrainedConfig:
    """The configuration of a size of the policy's family. Raises UserError where it isn't known."""
    family, size = family_of(policy), size.lower()
    if family and size in family.sizes:
        return family.config(size)
    known = f"known offline: {', '.join(family.sizes)}" if family else "of which no size is known offline"
    first = "take one of these, or" if family else "leave it out, and"
    raise UserError(
        f"model_size is {size!r}, and the configuration trains a {type(policy).__name__} ({known}); {first} set "
        "model.policy.init_args.path to that model's folder"
    )


def published_as(repository: str) -> PreTrainedConfig | None:
    """The configuration of the model that has this name on the hub, if it is known."""
    for family in FAMILIES:
        named = re.fullmatch(family.repository, repository)
        if named and (size := named[1].lower()) in family.sizes:
            return family.config(size)
    return None


def _qwen2_5_vl(
    width: int, mlp: int, layers: int, heads: int, kv_heads: int, vocabulary: int, tower_mlp: int, tied: bool
) -> PreTrainedConfig:
    text = _decoder(width, layers, heads, kv_heads, intermediate_size=mlp, vocab_size=vocabulary)
    vision = dict(depth=32, hidden_size=1280, num_heads=16, intermediate_size=tower_mlp, out_hidden_size=width)
    return _config("qwen2_5_vl", text, vision, tied)


def _qwen3_vl(
    width: int, mlp: int, layers: int, heads: int, kv_heads: int, depth: int, tied: bool, expert: int | None = None
) -> PreTrainedConfig:
    text = _decoder(width, layers, heads, kv_heads, intermediate_size=mlp, head_dim=128, vocab_size=151936)
    vision = dict(TOWERS[depth], depth=depth, out_hidden_size=width, deepstack_visual_indexes=DEEPSTACK[depth])
    if expert is None:
        return _config("qwen3_vl", text, vision, tied)
    experts = dict(num_experts=128, num_experts_per_tok=8, moe_intermediate_size=expert)
    return _config("qwen3_vl_moe", text | experts, vision, tied)


def _qwen3_5(
    width: int, mlp: int | None, layers: int, heads: int, kv_heads: int, states: int, depth: int, tied: bool
) -> PreTrainedConfig:
    text = _decoder(
        width, layers, heads, kv_heads, head_dim=256, vocab_size=248320, linear_num_value_heads=states,
        linear_num_key_heads=16, linear_key_head_dim=128, linear_value_head_dim=128,
    )  # fmt: skip
    vision = dict(TOWERS[depth], depth=depth, out_hidden_size=width)
    if mlp is not None:
        return _config("qwen3_5", text | dict(intermediate_size=mlp), vision, tied)
    experts = dict(
        num_experts=256, num_experts_per_tok=8, moe_intermediate_size=512, shared_expert_intermediate_size=512
    )
    return _config("qwen3_5_moe", text | experts, vision, tied)


def _gemma3(width: int, mlp: int, layers: int, heads: int, kv_heads: int, head: int) -> PreTrainedConfig:
    text = _decoder(width, layers, heads, kv_heads, intermediate_size=mlp, head_dim=head, vocab_size=262208)
    vision = dict(
        model_type="siglip_vision_model", hidden_size=1152, intermediate_size=4304, num_hidden_layers=27,
        num_attention_heads=16, image_size=896, patch_size=14, vision_use_head=False,
    )  # fmt: skip
    return _config("gemma3", text, vision, tied=True, mm_tokens_per_image=256)


def _decoder(width: int, layers: int, heads: int, kv_heads: int, **more: Any) -> Settings:
    sizes = dict(hidden_size=width, num_hidden_layers=layers, num_attention_heads=heads, num_key_value_heads=kv_heads)
    return sizes | more


def _config(model_type: str, text: Settings, vision: Settings, tied: bool, **more: Any) -> PreTrainedConfig:
    text = text | dict(tie_word_embeddings=tied)
    return AutoConfig.for_model(model_type, text_config=text, vision_config=vision, tie_word_embeddings=tied, **more)


QWEN2_5_VL = Family(
    "Qwen2.5-VL",
    ("qwen2_5_vl",),
    r"Qwen/Qwen2\.5-VL-(.+)-Instruct",
    {  # width, inner width, layers, heads, key-value heads, vocabulary, the tower's inner width, tied embeddings
        "3b": (2048, 11008, 36, 16, 2, 151936, 3420, True),
        "7b": (3584, 18944, 28, 28, 4, 152064, 3420, False),
        "32b": (5120, 27648, 64, 40, 8, 152064, 3456, False),
        "72b": (8192, 29568, 80, 64, 8, 152064, 3456, False),
    },
    _qwen2_5_vl,
)
QWEN3_VL = Family(
    "Qwen3-VL",
    ("qwen3_vl", "qwen3_vl_moe"),
    r"Qwen/Qwen3-VL-(.+)-(?:Instruct|Thinking)",
    {  # width, inner width, layers, heads, key-value heads, the tower's depth, tied embeddings, an expert's inner width
        "2b": (2048, 6144, 28, 16, 8, 24, True),
        "4b": (2560, 9728, 36, 32, 8, 24, True),
        "8b": (4096, 12288, 36, 32, 8, 27, False),
        "32b": (5120, 25600, 64, 64, 8, 27, False),
        "30b-a3b": (2048, 6144, 48, 32, 4, 27, False, 768),
        "235b-a22b": (4096, 12288, 94, 64, 4, 27, False, 1536),
    },
    _qwen3_vl,
)
QWEN3_5 = Family(
    "Qwen3.5",
    ("qwen3_5", "qwen3_5_moe"),
    r"Qwen/Qwen3\.5-(.+?)(?:-Base)?",
    {  # width, inner width, layers, heads, key-value heads, heads of a delta net's values, the tower's depth, tied
        "0.8b": (1024, 3584, 24, 8, 2, 16, 12, True),
        "2b": (2048, 6144, 24, 8, 2, 16, 24, True),
        "4b": (2560, 9216, 32, 16, 4, 32, 24, True),
        "9b": (4096, 12288, 32, 16, 4, 32, 27, False),
        "27b": (5120, 17408, 64, 24, 4, 48, 27, False),
        "35b-a3b": (2048, None, 40, 16, 2, 32, 27, False),
    },
    _qwen3_5,
)
GEMMA3 = Family(
    "Gemma 3",
    ("gemma3",),
    r"google/gemma-3-(.+)-(?:it|pt)",
    {  # width, inner width, layers, heads, key-value heads, a head's width
        "4b": (2560, 10240, 34, 8, 4, 256),
        "12b": (3840, 15360, 48, 16, 8, 256),
        "27b": (5376, 21504, 62, 32, 16, 128),
    },
    _gemma3,
)
FAMILIES = (QWEN2_5_VL, QWEN3_VL, QWEN3_5, GEMMA3)
