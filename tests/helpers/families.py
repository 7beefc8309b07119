"""Tiny random checkpoints of every family on disk: real classes, and tokenizers and templates of the published form."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import torch
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers
from torch import nn
from transformers import AutoConfig, AutoModelForImageTextToText, PreTrainedTokenizerFast
from transformers.image_processing_backends import PilBackend
from transformers.models.gemma3.image_processing_pil_gemma3 import Gemma3ImageProcessorPil
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

from mgpo.images.views import Frame
from mgpo.policy.hub.checkpoint_files import shipped_families
from mgpo.world.tokenizer import corpus

QWEN_TOKENS = (
    "<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|vision_start|>", "<|vision_end|>", "<|image_pad|>",
    "<|video_pad|>",
)  # fmt: skip
QWEN_FIELDS = dict(
    image_token_id="<|image_pad|>", video_token_id="<|video_pad|>", vision_start_token_id="<|vision_start|>",
    vision_end_token_id="<|vision_end|>", tie_word_embeddings=False,
)  # fmt: skip
GEMMA_TOKENS = (
    "<pad>", "<eos>", "<bos>", "<start_of_turn>", "<end_of_turn>", "<start_of_image>", "<end_of_image>",
    "<image_soft_token>",
)  # fmt: skip
PARTS = (
    "{%- macro say(content) -%}{%- if content is string -%}{{ content }}{%- else -%}{%- for part in content -%}"
    "{%- if part.type == 'image' -%}IMAGE{%- else -%}TEXT{%- endif -%}{%- endfor -%}{%- endif -%}{%- endmacro -%}"
)
QWEN_IMAGE = "<|vision_start|><|image_pad|><|vision_end|>"
CHATML = PARTS.replace("IMAGE", QWEN_IMAGE).replace("TEXT", "{{ part.text }}") + (
    "{%- for m in messages -%}{{ '<|im_start|>' + m.role + '\n' + say(m.content) + '<|im_end|>\n' }}{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{ '<|im_start|>assistant\n' }}{%- endif -%}"
)
# Contents are trimmed, earlier thoughts forgotten, and a reply begins with a thought or with an empty one.
THINKING = PARTS.replace("IMAGE", QWEN_IMAGE).replace("TEXT", "{{ part.text }}") + (
    "{%- for m in messages -%}{%- set text = say(m.content) | trim -%}"
    "{%- if m.role == 'assistant' -%}{%- set text = text.split('</think>')[-1].lstrip('\n') -%}{%- endif -%}"
    "{{ '<|im_start|>' + m.role + '\n' + text + '<|im_end|>\n' }}{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{ '<|im_start|>assistant\n<think>\n' }}"
    "{%- if enable_thinking is defined and not enable_thinking -%}{{ '\n</think>\n\n' }}{%- endif -%}{%- endif -%}"
)
# No system role: its text opens the first user turn. Every text is trimmed.
GEMMA = PARTS.replace("IMAGE", "<start_of_image>").replace("TEXT", "{{ part.text | trim }}") + (
    "{{ bos_token }}{%- set ns = namespace(first='') -%}{%- for m in messages -%}"
    "{%- if m.role == 'system' -%}{%- set ns.first = say(m.content) + '\n\n' -%}{%- else -%}"
    "{{ '<start_of_turn>' + ('model' if m.role == 'assistant' else m.role) + '\n' + ns.first }}"
    "{{ say(m.content) | trim }}{{ '<end_of_turn>\n' }}{%- set ns.first = '' -%}{%- endif -%}{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{ '<start_of_turn>model\n' }}{%- endif -%}"
)
TEXT = dict(
    hidden_size=32, intermediate_size=48, num_hidden_layers=4, num_attention_heads=4, num_key_value_heads=2, head_dim=8,
    max_position_embeddings=4096,
)  # fmt: skip
PLAIN_ROPE = {"rope_type": "default", "rope_theta": 10_000.0, "mrope_section": [2, 1, 1]}
ROPE = PLAIN_ROPE | {"mrope_interleaved": True}
TOWER = dict(
    depth=3, hidden_size=32, intermediate_size=48, num_heads=2, spatial_merge_size=2, temporal_patch_size=2,
    out_hidden_size=32,
)  # fmt: skip
TOWER_3 = TOWER | dict(patch_size=16, num_position_embeddings=36)
EXPERTS = dict(moe_intermediate_size=24, num_experts=4, num_experts_per_tok=2)
HYBRID = dict(
    linear_key_head_dim=8, linear_value_head_dim=8, linear_num_key_heads=2, linear_num_value_heads=4,
    layer_types=["linear_attention", "linear_attention", "linear_attention", "full_attention"],
    rope_parameters=ROPE | {"partial_rotary_factor": 1.0},
)  # fmt: skip


@dataclass(frozen=True)
class Family:
    """What a tiny checkpoint of a family is made of, and what a test has to know of it. Defaults are Qwen's."""

    name: str
    frame: Frame
    factor: int  # sides of what is seen are multiples of this
    vision: dict[str, Any]
    text: dict[str, Any]
    template: str = CHATML
    box: tuple[int, int, int, int] = (100, 100, 600, 700)
    special: tuple[str, ...] = QWEN_TOKENS  # tokens that are never text
    plain: tuple[str, ...] = ("<think>", "</think>")  # further tokens, which are
    named: Mapping[str, str] = field(default_factory=lambda: dict(eos_token="<|im_end|>", pad_token="<|endoftext|>"))
    end: str = "<|im_end|>"  # of a turn
    fields: Mapping[str, Any] = field(default_factory=lambda: QWEN_FIELDS)  # of the configuration; tokens by their text
    processor: Callable[["Family"], PilBackend] | None = None

    @property
    def gemma(self) -> bool:
        return self.name == "gemma3"

    @property
    def caps(self) -> dict[str, int]:
        """Options with which images are small."""
        unit = self.factor**2
        return {} if self.gemma else dict(max_pixels=12 * unit, min_pixels=2 * unit, crop_max_pixels=6 * unit)


def qwen_processor(family: Family) -> Qwen2VLImageProcessorPil:
    size = dict(shortest_edge=2 * family.factor**2, longest_edge=12 * family.factor**2)
    return Qwen2VLImageProcessorPil(patch_size=family.vision["patch_size"], size=size)


ALL = [
    Family(
        "qwen2_5_vl", Frame.PIXELS, 28, TOWER | dict(patch_size=14, window_size=56, fullatt_block_indexes=[1]),
        TEXT | dict(rope_parameters=PLAIN_ROPE), box=(0, 0, 56, 50),
    ),
    Family(
        "qwen3_vl", Frame.THOUSAND, 32, TOWER_3 | dict(deepstack_visual_indexes=[0, 2]),
        TEXT | dict(rope_parameters=ROPE),
    ),
    Family(
        "qwen3_vl_moe", Frame.THOUSAND, 32, TOWER_3 | dict(deepstack_visual_indexes=[1]),
        # Of norm_topk_prob only vLLM asks: published configurations have it.
        TEXT | EXPERTS | dict(rope_parameters=ROPE, decoder_sparse_step=1, mlp_only_layers=[], norm_topk_prob=True),
    ),
    Family("qwen3_5", Frame.THOUSAND, 32, TOWER_3, TEXT | HYBRID, THINKING),
    Family(
        "qwen3_5_moe", Frame.THOUSAND, 32, TOWER_3, TEXT | HYBRID | EXPERTS | dict(shared_expert_intermediate_size=24),
        THINKING,
    ),
    Family(
        "gemma3", Frame.THOUSAND, 56,
        dict(
            model_type="siglip_vision_model", hidden_size=32, intermediate_size=48, num_hidden_layers=2,
            num_attention_heads=2, image_size=56, patch_size=14,
        ),
        # A window of a few dozen tokens, so that it passes over images and holes.
        TEXT | dict(
            sliding_window=24, layer_types=["sliding_attention", "full_attention"] * 2, query_pre_attn_scalar=8,
        ),
        GEMMA, special=GEMMA_TOKENS, plain=("\n\n", "\n\n\n"), end="<end_of_turn>",
        named=dict(bos_token="<bos>", eos_token="<eos>", pad_token="<pad>"),
        fields=dict(
            image_token_index="<image_soft_token>", boi_token_index="<start_of_image>",
            eoi_token_index="<end_of_image>", mm_tokens_per_image=4,
        ),
        processor=lambda family: Gemma3ImageProcessorPil(
            size=dict(height=56, width=56), image_mean=[0.5] * 3, image_std=[0.5] * 3
        ),
    ),
]  # fmt: skip


@cache
def _words() -> str:
    """A small byte-level BPE without any special tokens."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=700, initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator(sorted(set(corpus())), trainer)
    return tokenizer.to_str()


def make_tokenizer(family: Family) -> PreTrainedTokenizerFast:
    """Control tokens are special; marks of thoughts and runs of line breaks are tokens too, but text."""
    tokenizer = Tokenizer.from_str(_words())
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in family.special])
    tokenizer.add_tokens([AddedToken(token, special=False, normalized=False) for token in family.plain])
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, chat_template=family.template, **family.named)


def make_model(
    family: Family, tokenizer: PreTrainedTokenizerFast, tied: bool | None = None, rows: int | None = None
) -> Any:
    """The stock class by way of its configuration, with weights large enough to tell inputs apart.

    `tied` says whether head and embeddings are one; by default Gemma's are. They have `rows` rows, or a few more than
    there are tokens.
    """
    token = tokenizer.convert_tokens_to_ids
    text = family.text | dict(pad_token_id=tokenizer.pad_token_id, bos_token_id=None)
    text["vocab_size"] = rows or len(tokenizer) + 5
    text["eos_token_id"] = token(family.end)
    fields = {name: token(value) if isinstance(value, str) else value for name, value in family.fields.items()}
    if tied is not None:
        fields["tie_word_embeddings"] = text["tie_word_embeddings"] = tied
    config = AutoConfig.for_model(family.name, text_config=text, vision_config=family.vision, **fields)
    torch.manual_seed(0)
    model = AutoModelForImageTextToText.from_config(config)
    for name, parameter in model.named_parameters():
        fan_in = parameter.shape[-1] if "experts" in name else parameter[0].numel()
        if "embed_tokens" in name:
            nn.init.normal_(parameter, std=0.3)
        elif "A_log" in name:  # states that last: a hole in them is felt, and little is lost to rounding
            nn.init.uniform_(parameter, -4.0, -1.0)
        elif parameter.ndim > 1:
            nn.init.normal_(parameter, std=0.7 / fan_in**0.5)
    return model


def save_checkpoint(family: Family, folder: Path, tied: bool | None = None) -> Path:
    """Weights, configuration, tokenizer and image processor in a folder."""
    tokenizer = make_tokenizer(family)
    make_model(family, tokenizer, tied).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    make_processor = family.processor or qwen_processor
    make_processor(family).save_pretrained(folder)
    return folder


assert {family.name for family in ALL} == set(shipped_families())
