"""Gradient checkpointing (arXiv 1604.06174) of layers that read and grow a cache."""

from collections.abc import Callable, Sequence
from copy import copy
from functools import partial
from types import MethodType
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from mgpo.policy.passes.attention import Outputs, kept_outputs


def recompute(decoder: Sequence[nn.Module], blocks: Sequence[nn.Module], share: float) -> None:
    """In training keep of this share of layers only what goes into them, and in decoders what our own attention gave,
    which is small and slow to make; the backward pass runs them again. They are the first ones: when it comes to them,
    what the others kept is gone.

    The library's own switch drops the cache, by which continuations see their shared prefix.
    """
    for index, layer in enumerate(decoder[: rerun(len(decoder), share)]):
        layer.forward = MethodType(partial(_decode, index, layer.forward.__func__), layer)
    for block in blocks[: rerun(len(blocks), share)]:
        block.forward = MethodType(_see, block)


def rerun(layers: int, share: float) -> int:
    """How many of so many layers are run again."""
    return round(share * layers)


def _see(block: nn.Module, *inputs: Any, **options: Any) -> Tensor:
    forward = partial(type(block).forward, block, **options)
    return checkpoint(forward, *inputs, use_reentrant=False) if _learns(block) else forward(*inputs)


def _decode(
    index: int, whole: Callable[..., Tensor], layer: nn.Module, *inputs: Any, past_key_values: Any, **options: Any
) -> Tensor:
    """The first pass grows the cache. Later ones grow a copy of what it was before, so they see the same."""
    forward = partial(whole, layer, **options)
    if not _learns(layer):
        return forward(*inputs, past_key_values=past_key_values)
    if past_key_values is None:
        return _attend_once(partial(forward, past_key_values=None), *inputs)
    before = _only(past_key_values, index)
    first = [past_key_values]  # handed over, not kept: it will grow by all other layers

    def run(*inputs: Any) -> Tensor:
        return forward(*inputs, past_key_values=first.pop() if first else _only(before, index))

    return checkpoint(run, *inputs, use_reentrant=False)


def _attend_once(forward: Callable[..., Tensor], *inputs: Any) -> Tensor:
    outputs: Outputs = []

    def run(*inputs: Any) -> Tensor:
        with kept_outputs(outputs):
            return forward(*inputs)

    return checkpoint(run, *inputs, use_reentrant=False)


def _learns(layer: nn.Module) -> bool:
    return layer.training and torch.is_grad_enabled()


def _only(cache: Any, index: int) -> Any:
    """A copy that knows one layer (none, if the cache makes it at its first token). Tensors are shared: none is
    changed in place."""
    alone = copy(cache)
    alone.layers = [_copied(layer) for layer in cache.layers[index : index + 1]] * (index + 1)
    return alone


def _copied(layer: Any) -> Any:
    twin = copy(layer)
    vars(twin).update({name: copy(value) for name, value in vars(layer).items() if isinstance(value, dict | list)})
    return twin
