"""The library's decoders on a packed row: our attention, and a last layer for the asked tokens alone."""

from types import MethodType
from typing import Any

from torch import Tensor
from transformers import AttentionInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import AttentionMaskInterface, sdpa_mask

from mgpo.policy.attention import Packing, packed_attention
from mgpo.policy.sharing import SharedCache

NAME = "mgpo"  # under which the library knows `attend`


def use_packing(decoder: Any) -> None:
    """Have a decoder take `packing=` in its forward; without it nothing changes."""
    decoder.set_attn_implementation(NAME)
    last = decoder.layers[-1]
    last.self_attn.is_last = True
    last.forward = MethodType(_finish, last)


def attend(
    module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    packing: Packing | None = None,
    rows: SharedCache | None = None,
    **options: Any,
) -> tuple[Tensor, None]:
    """The library's attention, but for a packed row, and for rows that share their prompts."""
    if rows is not None:
        assert attention_mask is not None
        return rows.attend(module.layer_idx, query, key, value, attention_mask, options["scaling"]), None
    if packing is None:
        return sdpa_attention_forward(module, query, key, value, attention_mask, **options)
    last = getattr(module, "is_last", False)
    return packed_attention(query, key, value, packing, options["scaling"], last), None


def _finish(layer: Any, hidden_states: Tensor, *inputs: Any, packing: Packing | None = None, **options: Any) -> Tensor:
    """The layer as the families here have it, two residual branches, the second one for the asked tokens only."""
    if packing is None:
        return type(layer).forward(layer, hidden_states, *inputs, **options)
    normed = layer.input_layernorm(hidden_states)
    attended = layer.self_attn(normed, *inputs, packing=packing, **options)[0]
    asked_1MD = (hidden_states + attended)[:, packing.asked_M]
    return asked_1MD + layer.mlp(layer.post_attention_layernorm(asked_1MD))


AttentionInterface.register(NAME, attend)
AttentionMaskInterface.register(NAME, sdpa_mask)
