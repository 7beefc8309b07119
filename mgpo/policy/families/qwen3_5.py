"""Qwen3.5 as a policy, dense and mixture of experts: three of four layers keep a state instead of keys and values."""

from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from transformers import Cache, DynamicCache, PreTrainedTokenizerBase
from transformers.cache_utils import LinearAttentionLayer

from mgpo.errors import UserError
from mgpo.images.views import Frame
from mgpo.policy.decoding.row_cache import RowCache, swap_rows
from mgpo.policy.families.qwen import QwenVL


class Qwen35(QwenVL):
    """Qwen3.5: coordinates from 0 to 1000, interleaved mRoPE, gated delta nets (arXiv 2412.06464) between attention.

    A hole can be masked where keys are looked up, but would pass into a state and stay there. Here it
    leaves the state as it was: its decay is one, its step is zero, and the short convolution skips it.
    """

    model_types = ("qwen3_5", "qwen3_5_moe")
    frame = published_frame = Frame.THOUSAND
    video_processor = "Qwen3VLVideoProcessor"

    def attach(self, model: Any, tokenizer: PreTrainedTokenizerBase, processor: Any) -> None:
        """Take a model that is already in memory. Raises UserError where holes could not be told from tokens."""
        super().attach(model, tokenizer, processor)
        if self.pad_id == self.chat.end_id:
            raise UserError(f"the tokenizer in {self.path} needs a pad token of its own: holes are known by it")
        self.hole_NT: Tensor | None = None  # of the layer that is being passed
        for layer in model.model.language_model.layers:
            if layer.block_type == "linear_attention":
                layer.linear_attn.register_forward_pre_hook(self._find_holes, with_kwargs=True)
                for gate in (layer.linear_attn.in_proj_a, layer.linear_attn.in_proj_b):
                    gate.register_forward_hook(self._shut)

    def new_cache(self) -> Cache:
        """Keys and values of the attention layers, states of the others."""
        return _with_states(DynamicCache(config=self.model.config.text_config))

    def new_row_cache(self) -> RowCache:
        """The same for rollouts."""
        return _with_states(_StateRows(self.model.config.text_config))

    def decode(
        self, ids: Tensor, features: Tensor | None, positions: Tensor, mask: Tensor | None, cache: Cache
    ) -> Tensor:
        """Final hidden states (rows, tokens, width); `cache` grows by these tokens."""
        hole_NT = ids == self.pad_id
        for layer in cache.layers:
            if isinstance(layer, _State):
                layer.hole_NT = hole_NT
        masks = {"full_attention": mask, "linear_attention": None}
        return self.run(self.embed(ids, features), positions, masks, cache)

    def _find_holes(self, net: Any, inputs: tuple, options: dict[str, Any]) -> None:
        """They come with the cache, so that a layer that is run again in the backward pass finds them too."""
        cache = options.get("cache_params")
        self.hole_NT = None if cache is None else getattr(cache.layers[net.layer_idx], "hole_NT", None)

    def _shut(self, gate: nn.Module, inputs: tuple[Tensor, ...], opening_NTH: Tensor) -> Tensor:
        """Decay and step are exp(-A softplus(a + bias)) and sigmoid(b): at minus infinity one and zero."""
        return opening_NTH if self.hole_NT is None else opening_NTH.masked_fill(self.hole_NT[..., None], -torch.inf)


C = TypeVar("C", bound=Cache)


def _with_states(cache: C) -> C:
    cache.layers = [_State() if isinstance(layer, LinearAttentionLayer) else layer for layer in cache.layers]
    return cache


class _StateRows(RowCache):
    """A pass over the first rows begins with their states."""

    def get_recurrent_state(self, layer_idx: int, state_idx: int = 0) -> Tensor | None:
        state, layer = super().get_recurrent_state(layer_idx, state_idx), self.layers[layer_idx]
        assert isinstance(layer, _State)
        return None if state is None else state[: len(layer.hole_NT)]


class _State(LinearAttentionLayer):
    """What a gated delta net remembers of each row; a pass never changes it in place, since gradients go through it.

    A pass over fewer rows than there are, in a rollout, leaves the later ones as they are.
    """

    hole_NT: Tensor  # which of the tokens that come next are holes

    def __init__(self) -> None:
        super().__init__()
        self.record_past = True  # single tokens too are then convolved by way of `update_conv_state`

    def update_conv_state(self, conv_states: Tensor, state_idx: int = 0, **options: Any) -> Tensor:
        """The inputs (rows, width, tokens) with those before them; the last ones that are no holes are kept."""
        reach = options["conv_kernel_size"] - 1
        rows, width, _ = conv_states.shape
        before = self.conv_states[0]
        if before is None:
            before = conv_states.new_zeros(rows, width, reach)
        inputs = torch.cat([before[:rows], conv_states], -1)
        kept = (~self.hole_NT).sum(1, keepdim=True) + torch.arange(reach, device=inputs.device)
        self.conv_states[0] = _before(inputs.gather(-1, kept[:, None].expand(-1, width, -1)), before)
        self.has_previous_state[0] = True
        return inputs

    def update_recurrent_state(self, recurrent_states: Tensor, state_idx: int = 0, **options: Any) -> Tensor:
        self.recurrent_states[0] = _before(recurrent_states, self.recurrent_states[0])
        return recurrent_states

    def batch_select_indices(self, indices: Tensor) -> None:
        states: dict[int, Any]
        for states in (self.conv_states, self.recurrent_states):
            states[0] = states[0][indices]

    select = batch_select_indices

    def swap(self, a: Tensor, b: Tensor) -> None:
        states: dict[int, Any]
        for states in (self.conv_states, self.recurrent_states):
            swap_rows(states[0], a, b)


def _before(state: Tensor, whole: Tensor | None) -> Tensor:
    """The states of all rows, of which the first ones are new."""
    return state if whole is None or len(whole) == len(state) else torch.cat([state, whole[len(state) :]])
