"""What rollouts remember of the tokens before: rows that are repeated, set aside and taken up again, in place.

Shapes: N rows, K key-value heads, S cached tokens, E width of a head. Nothing here has gradients.
"""

from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer

ROOM = 64  # tokens by which a buffer grows at least


class RowCache(DynamicCache):
    """A cache whose layers keep the rows in the order that the sampler needs.

    A pass over fewer rows than there are goes on with the first ones; the others stay as they are.
    """

    def __init__(self, config: Any = None) -> None:
        super().__init__(config=config)
        if config is None:
            self.layer_class_to_replicate = Roomy
        self.layers = [Roomy() if type(layer) is DynamicLayer else layer for layer in self.layers]

    def select(self, rows_N: Tensor) -> None:
        """Keep and repeat these rows."""
        layer: Any
        for layer in self.layers:
            layer.select(rows_N)

    def swap(self, a: Tensor, b: Tensor) -> None:
        """Exchange rows a[i] and b[i]."""
        layer: Any
        for layer in self.layers:
            layer.swap(a, b)


class Roomy(DynamicLayer):
    """Keys and values in buffers with room behind them: a token is written there, and no earlier one is copied."""

    keys: Any
    values: Any
    length = 0

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **options: Any) -> tuple[Tensor, Tensor]:
        rows, _, new, _ = key_states.shape
        end = self.length + new
        if not self.is_initialized:
            self.keys, self.values = (with_room(state[:, :, :0], 2, end) for state in (key_states, value_states))
            self.is_initialized = True
        elif end > self.keys.shape[2]:
            self.keys, self.values = (with_room(kept, 2, end) for kept in (self.keys, self.values))
        self.keys[:rows, :, self.length : end] = key_states
        self.values[:rows, :, self.length : end] = value_states
        self.length = end
        return self.keys[:rows, :, :end], self.values[:rows, :, :end]

    def get_seq_length(self) -> int:
        return self.length

    def select(self, rows_N: Tensor) -> None:
        self.keys, self.values = (
            with_room(kept[:, :, : self.length], 2, self.length + ROOM, rows_N) for kept in (self.keys, self.values)
        )

    def swap(self, a: Tensor, b: Tensor) -> None:
        for kept in (self.keys, self.values):
            swap_rows(kept[:, :, : self.length], a, b)


def with_room(kept: Tensor, dim: int, length: int, rows_N: Tensor | None = None) -> Tensor:
    """A buffer that begins with these values, or with some of their rows, and holds at least `length` along `dim`.

    What is not yet written is zero: a masked key may hold anything but NaN.
    """
    shape = list(kept.shape)
    shape[dim] = max(length, shape[dim] + max(ROOM, shape[dim] // 8))
    shape[0] = len(kept) if rows_N is None else len(rows_N)
    buffer = kept.new_zeros(shape)
    buffer.narrow(dim, 0, kept.shape[dim]).copy_(kept if rows_N is None else kept[rows_N])
    return buffer


def swap_rows(kept: Tensor, a: Tensor, b: Tensor) -> None:
    """Exchange rows a[i] and b[i] in place."""
    kept[torch.cat([a, b])] = kept[torch.cat([b, a])]
