"""Our attention in the library's layers: in decoders on a packed row, in vision towers on all pieces at once."""

from copy import copy
from functools import lru_cache
from types import MethodType
from typing import Any

from torch import Tensor
from torch.nn import functional as F
from transformers import AttentionInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import AttentionMaskInterface, sdpa_mask

from mgpo.policy.decoding.prompt_cache import SharedCache
from mgpo.policy.passes.attention import packed_attention, separate_attention
from mgpo.policy.passes.packing import Packing, pieces

DECODER = "mgpo"  # under which the library knows `attend`
TOWER = "mgpo_flash"  # and `attend_pieces`: it gives where pieces end only to what calls itself flash


def use_packing(decoder: Any) -> None:
    """Have a decoder take `packing=` in its forward; without it nothing changes."""
    decoder.set_attn_implementation(DECODER)
    last = decoder.layers[-1]
    last.forward = MethodType(_finish, last)


def use_pieces(tower: Any) -> None:
    """Have a vision tower attend to all pictures, or all their windows, in one call a layer.

    Its first layer, a convolution whose windows do not overlap, becomes the product that it is: several times faster.
    Its configuration becomes a copy: the model's own is what others are made from, and exported with.
    """
    own = copy(config := tower.config)
    own._attn_implementation = TOWER  # the library's own setter asks for packages that call themselves flash
    for part in tower.modules():
        if getattr(part, "config", None) is config:
            part.config = own
    tower.patch_embed.forward = MethodType(_embed, tower.patch_embed)


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
    return packed_attention(query, key, value, packing, options["scaling"]), None


def attend_pieces(
    module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    cu_seq_lens_q: Tensor,
    scaling: float,
    **options: Any,
) -> tuple[Tensor, None]:
    """Attention inside a vision tower in transformers' form: every picture, or window of one, sees itself.

    `cu_seq_lens_q` says where pieces begin and end, so no mask is needed.
    """
    return separate_attention(query, key, value, _pieces(cu_seq_lens_q), scaling), None


def _embed(patches: Any, hidden_states: Tensor) -> Tensor:
    """(patches, width). A still is the same frame twice, or given once: it meets the sum of the frames' weights."""
    convolution = patches.proj
    colours, frames = convolution.weight.shape[1:3]
    still = hidden_states
    if hidden_states.shape[1] == convolution.weight[0].numel():
        still = hidden_states.unflatten(1, (colours, frames, -1))[:, :, 0].flatten(1)
    return F.linear(still.to(convolution.weight.dtype), convolution.weight.sum(2).flatten(1), convolution.bias)


_pieces = lru_cache(maxsize=2)(pieces)  # a tower gives all layers the same two tensors, told apart by identity


def _finish(layer: Any, hidden_states: Tensor, *inputs: Any, packing: Packing | None = None, **options: Any) -> Tensor:
    """The last layer as the families here have it, two residual branches, the second one for the asked tokens alone:
    the others have had their say in its keys."""
    if packing is None:
        return type(layer).forward(layer, hidden_states, *inputs, **options)
    normed = layer.input_layernorm(hidden_states)
    attended = layer.self_attn(normed, *inputs, packing=packing, **options)[0]
    asked_1MD = (hidden_states + attended)[:, packing.asked_M]
    return asked_1MD + layer.mlp(layer.post_attention_layernorm(asked_1MD))


AttentionInterface.register(DECODER, attend)
AttentionInterface.register(TOWER, attend_pieces)
AttentionMaskInterface.register(DECODER, sdpa_mask)
