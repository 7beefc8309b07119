"""What rollouts remember of the tokens before: rows that are repeated, set aside and taken up again, in place.

Shapes: N rows, K key-value heads, S cached tokens, T new tokens, E width of a head. Nothing here has gradients.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer

ROOM = 64  # tokens by which a buffer grows at least


class RowCache(DynamicCache):
    """A cache whose layers keep the rows in the order that the sampler needs.

    All rows have as many columns, of which some are holes: padding, and what was passed while a row was set aside.
    A pass over fewer rows than there are goes on with the first ones; the others stay as they are.
    """

    static = False  # whether passes over single tokens can be replayed, while `width` has room for their columns

    def __init__(self, config: Any = None) -> None:
        super().__init__(config=config)
        if config is None:
            self.layer_class_to_replicate = Roomy
        self.layers = [Roomy() if type(layer) is DynamicLayer else layer for layer in self.layers]
        self.valid_NS: Any = None  # which columns are no holes; there may be room behind those that are in use
        self.columns = 0

    @property
    def width(self) -> int:
        """The columns for which there is room, in use or not."""
        return self.valid_NS.shape[1]

    def extend(self, new_NT: Tensor) -> Tensor | None:
        """Take note of the tokens of a pass, which are false where a row has none; what they see.

        Returns:
            (N, 1, T, S + T): each its row's valid past and its own row causally; None where there is no past.
        """
        past_NS = new_NT[:, :0] if self.valid_NS is None else self.valid_NS[:, : self.columns]
        self.valid_NS = torch.cat([past_NS, new_NT], 1)
        self.columns = self.valid_NS.shape[1]
        return behind(past_NS, new_NT.shape[1]) if past_NS.shape[1] else None

    def step(self, rows: int, passed: int) -> None:
        """Take note of one token in each of the first rows; in the others, passed or not, it leaves a hole."""
        self.columns += 1
        if self.columns > self.valid_NS.shape[1]:
            self.grow()
        self.valid_NS[:rows, self.columns - 1] = True

    def grow(self) -> None:
        """Have room for the last column."""
        self.valid_NS = with_room(self.valid_NS, 1, self.columns)

    def step_mask(self, rows: int) -> Tensor:
        """What the last pass's single tokens see: (N, 1, 1, S + 1)."""
        return self.valid_NS[:rows, None, None, : self.columns]

    def fork(self, rows: Sequence[int]) -> None:
        """Have every row go on as several: these, in ascending order."""
        self.select(rows)

    def select(self, rows: Sequence[int]) -> None:
        """Keep these rows, in this order; a row that is named more than once is repeated."""
        rows_N = torch.tensor(rows, dtype=torch.long, device=self.valid_NS.device)
        self.valid_NS = self.valid_NS[rows_N, : self.columns]
        self.select_states(rows_N)

    def select_states(self, rows_N: Tensor) -> None:
        """Keep and repeat these rows of what every layer holds."""
        layer: Any
        for layer in self.layers:
            layer.select(rows_N)

    def swap(self, first: Sequence[int], second: Sequence[int]) -> None:
        """Exchange rows first[i] and second[i]."""
        a, b = (torch.tensor(rows, device=self.valid_NS.device) for rows in (first, second))
        swap_rows(self.valid_NS, a, b)
        self.swap_states(a, b)

    def swap_states(self, a: Tensor, b: Tensor) -> None:
        """Exchange rows a[i] and b[i] of what every layer holds."""
        layer: Any
        for layer in self.layers:
            layer.swap(a, b)


class Roomy(DynamicLayer):
    """Keys and values in buffers with room behind them: a token is written there, and no earlier one is copied."""

    keys: Any
    values: Any
    length = 0

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **options: Any) -> tuple[Tensor, Tensor]:
        """Write keys and values (N, K, T, E) of new tokens behind those that are there.

        Returns:
            Keys and values (N, K, S + T, E) of these rows, as views of the buffers.
        """
        rows, _, new, _ = key_states.shape
        end = self.length + new
        self.reserve(key_states, value_states, end)
        self.keys[:rows, :, self.length : end] = key_states
        self.values[:rows, :, self.length : end] = value_states
        self.length = end
        return self.keys[:rows, :, :end], self.values[:rows, :, :end]

    def reserve(self, keys: Tensor, values: Tensor, end: int) -> None:
        """Have room for `end` tokens, with the shape and type of these keys and values."""
        if not self.is_initialized:
            self.keys, self.values = (with_room(state[:, :, :0], 2, end) for state in (keys, values))
            self.is_initialized = True
        elif end > self.keys.shape[2]:
            self.keys, self.values = (with_room(kept, 2, end) for kept in (self.keys, self.values))

    def get_seq_length(self) -> int:
        """Columns in use, as transformers asks for them."""
        return self.length

    def select(self, rows_N: Tensor) -> None:
        """Keep and repeat these rows, in new buffers with room behind."""
        self.keys, self.values = (
            with_room(kept[:, :, : self.length], 2, self.length + ROOM, rows_N) for kept in (self.keys, self.values)
        )

    def swap(self, a: Tensor, b: Tensor) -> None:
        """Exchange rows a[i] and b[i] in place, in the columns that are in use."""
        for kept in (self.keys, self.values):
            swap_rows(kept[:, :, : self.length], a, b)


def behind(past_NS: Tensor, width: int) -> Tensor:
    """The mask (N, 1, T, S + T) under which every new token sees its row's valid past, and itself causally.

    Args:
        past_NS: Columns that are no holes.
        width: New tokens, T.
    """
    causal = torch.ones(width, width, dtype=torch.bool, device=past_NS.device).tril()
    past = past_NS[:, None, :].expand(-1, width, -1)
    return torch.cat([past, causal.expand(len(past_NS), -1, -1)], -1)[:, None]


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
