"""Rollouts that share a prompt hold its keys and values once: each row looks at the prompt and at its own tokens.

All queries that look at one key-value head of a prompt, of every row and head that share it, lie side by side, so that
one call reads its keys once. The two looks are joined by their log-sum-exps, which gives the softmax over both. Passes
over sampled tokens that are replayed on a GPU have a kernel of their own for all of that.

Shapes: N rows, B prompts, R seats of a prompt, H heads, K key-value heads, P prompt tokens, S cached tokens, T new
tokens, E width of a head.
"""

from collections import Counter
from collections.abc import Sequence
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from mgpo.policy.decoding.row_cache import ROOM, RowCache, behind, with_room
from mgpo.policy.passes.kernels import aligned

DEVICES = ("cpu", "cuda")  # where there is a kernel that gives log-sum-exps
STATIC_ROOM = 192  # tokens: more than elsewhere, since passes are captured anew whenever a buffer has grown


class SharedCache(RowCache):
    """A row cache of decoders whose tokens know of each other by plain causal attention alone.

    Args:
        config: Of the decoder.
        static: In passes over single tokens nothing but values changes from one to the next, until there is no room
            left: so they can be replayed. Rows then look at whole buffers, of which the unused part is masked.
    """

    def __init__(self, config: Any, static: bool = False) -> None:
        super().__init__(config)
        self.static, self.stepping = static, False
        self.prompts: list[tuple[Tensor, Tensor]] = []  # (B, K, P, E) of every layer
        self.owners: list[int] = []  # of each row the prompt that it continues
        self.fused = static and find_spec("triton") is not None
        self.seats: tuple[Tensor, Tensor] | None = None  # (B · R,) which row sits there; (N,) where each row sits
        self.seated = 0

    def extend(self, new_NT: Tensor) -> Tensor | None:
        """Take note of the tokens of a pass, and seat its rows at their prompts.

        Returns:
            An additive mask (N, 1, T, S + T) over the rows' own tokens; None for prompts, which begin here.
        """
        self.stepping = False
        mask = super().extend(new_NT)
        if mask is None and self.prompts:
            mask = behind(new_NT[:, :0], new_NT.shape[1])
        self._seat(len(new_NT))
        return None if mask is None else self._bias(mask)

    def step(self, rows: int, passed: int) -> None:
        """Take note of one token in each of the first rows, and of the column into which a static cache writes it."""
        self.stepping = True
        super().step(rows, passed)
        self._seat(passed)
        if self.static:
            self.column.fill_(self.columns - 1)
            layer: Any
            for layer in self.layers:
                layer.length = self.columns

    def grow(self) -> None:
        """Have room for the last column; in a static cache for more, because buffers that move end a replay."""
        if not self.static:
            return super().grow()
        layer: Any
        for layer in self.layers:
            layer.reserve(layer.keys, layer.values, self.columns + STATIC_ROOM)
        self.valid_NS = F.pad(self.valid_NS, (0, layer.keys.shape[2] - self.width))
        self.place_S = torch.arange(self.width, device=self.valid_NS.device)
        self.column = self.place_S[:1].clone()

    def step_mask(self, rows: int) -> Tensor:
        """The additive mask (N, 1, 1, S + 1) over the rows' own tokens; of a static cache over its whole buffers, and
        for the kernel simply which they see."""
        if not self.static:
            return self._bias(super().step_mask(rows))
        own_S = self.place_S == self.column  # what fills up a pass has to see something
        seen = (self.valid_NS[:rows] | own_S)[:, None, None]
        return seen if self.fused and seen.is_cuda else self._bias(seen)

    def update(
        self, key_states: Tensor, value_states: Tensor, layer_idx: int, *args: Any, **options: Any
    ) -> tuple[Tensor, Tensor]:
        """Put keys and values (N, K, T, E) of a layer into its buffers.

        Returns:
            Keys and values (N, K, S, E) of the rows' own tokens; of a static cache with the unused room behind them.
        """
        kind = key_states.device.type
        if torch.is_autocast_enabled(kind):  # in which attention is computed in its type anyway
            dtype = torch.get_autocast_dtype(kind)
            key_states, value_states = key_states.to(dtype), value_states.to(dtype)
        if not (self.static and self.stepping):
            return super().update(key_states, value_states, layer_idx, *args, **options)
        layer: Any = self.layers[layer_idx]
        rows = len(key_states)
        for kept, new in ((layer.keys, key_states), (layer.values, value_states)):
            kept[:rows].index_copy_(2, self.column, new)
        return layer.keys[:rows], layer.values[:rows]

    def fork(self, rows: Sequence[int]) -> None:
        """Take what is cached as prompts; `rows` says which one each row continues, with nothing of its own so far."""
        self.owners = list(rows)
        self.prompt_valid = self.valid_NS[:, : self.columns].contiguous()
        self.prompt_bias = self._bias(self.prompt_valid[:, None, None])
        self.valid_NS, self.columns = self.valid_NS.new_zeros(len(rows), 0), 0
        layer: Any
        for layer in self.layers:
            self.prompts.append((layer.keys[:, :, : layer.length], layer.values[:, :, : layer.length]))
            nobody = torch.zeros(len(rows), dtype=torch.long, device=self.valid_NS.device)
            layer.keys, layer.values = (with_room(kept[:, :, :0], 2, ROOM, nobody) for kept in self.prompts[-1])
            layer.length = 0

    def select(self, rows: Sequence[int]) -> None:
        """Keep and repeat these rows, each at the prompt that it continues."""
        super().select(rows)
        if self.prompts:
            self.owners, self.seats, self.seated = [self.owners[row] for row in rows], None, 0

    def swap(self, first: Sequence[int], second: Sequence[int]) -> None:
        """Exchange rows first[i] and second[i], with the prompts that they continue."""
        super().swap(first, second)
        if self.prompts:
            self.seated = 0
            for a, b in zip(first, second):
                self.owners[a], self.owners[b] = self.owners[b], self.owners[a]

    def attend(self, layer: int, q_NHTE: Tensor, k_NKSE: Tensor, v_NKSE: Tensor, bias: Tensor, scale: float) -> Tensor:
        """A layer's queries look at their prompt and at their own row, in one softmax: (N, T, H, E)."""
        assert self.seats is not None
        keys, values = self.prompts[layer]
        q, (place_BR, seat_N) = q_NHTE.to(k_NKSE.dtype), self.seats
        if bias.dtype == torch.bool:
            from mgpo.policy.decoding.step_kernel import step_attention  # which needs Triton

            prompt, own = (keys, values, self.prompt_valid, self.owner_N), (k_NKSE, v_NKSE, bias[:, 0, 0], self.column)
            return step_attention(q[:, :, 0], prompt, own, scale)[:, None]
        own_NHTE, own_NHT = look(q, k_NKSE, v_NKSE, bias, scale)
        seats = q.index_select(0, place_BR).unflatten(0, (len(keys), -1))
        looks = look(seats.transpose(1, 2).flatten(2, 3), keys, values, self.prompt_bias, scale)
        back_NHTE, back_NHT = (
            found.unflatten(2, (-1, q.shape[2])).transpose(1, 2).flatten(0, 1).index_select(0, seat_N[: len(q)])
            for found in looks
        )
        share = torch.sigmoid(back_NHT - own_NHT)[..., None].to(q.dtype)
        return own_NHTE.lerp(back_NHTE, share).transpose(1, 2)

    def _bias(self, mask: Tensor) -> Tensor:
        layer: Any = self.layers[0]
        return as_bias(mask, layer.keys.dtype)

    def _seat(self, rows: int) -> None:
        """Give every one of the first rows a seat at its prompt; in an empty seat sits the first row once more."""
        if not self.prompts or rows == self.seated:
            return
        taken: Counter[int] = Counter()
        numbers: list[int] = []
        for owner in self.owners[:rows]:
            numbers.append(taken[owner])
            taken[owner] += 1
        each = max((Counter(self.owners) if self.static else taken).values())
        seats = [owner * each + number for owner, number in zip(self.owners, numbers)]
        row_at = dict(zip(seats, range(rows)))
        places = [row_at.get(seat, 0) for seat in range(len(self.prompt_bias) * each)]
        if self.seats is None or not self.static:
            new = torch.zeros(len(places) + len(self.owners), dtype=torch.long, device=self.valid_NS.device)
            self.seats = new[: len(places)], new[len(places) :]
            if self.fused:
                self.owner_N = torch.zeros(len(self.owners), dtype=torch.int32, device=self.valid_NS.device)
        place_BR, seat_N = self.seats
        place_BR.copy_(torch.tensor(places))
        seat_N[:rows].copy_(torch.tensor(seats))
        if self.fused:
            self.owner_N[:rows].copy_(torch.tensor(self.owners[:rows]))
        self.seated = rows


def look(q_NHTE: Tensor, k_NKSE: Tensor, v_NKSE: Tensor, bias: Tensor, scale: float) -> tuple[Tensor, Tensor]:
    """Attention (N, H, T, E) and its log-sum-exps (N, H, T); no key is repeated for the heads that share it.

    `bias` is (N, 1, T, S), or (N, 1, 1, S) where all queries see the same.
    """
    heads, shared = q_NHTE.shape[1], k_NKSE.shape[1]
    if bias.shape[2] == 1:
        out, lse = _kernel(q_NHTE.unflatten(1, (shared, -1)).flatten(2, 3), k_NKSE, v_NKSE, bias, scale)
        return out.reshape(q_NHTE.shape), lse.reshape(q_NHTE.shape[:3])
    of_each = [_kernel(q_NHTE[:, i :: heads // shared], k_NKSE, v_NKSE, bias, scale) for i in range(heads // shared)]
    out, lse = (torch.stack(parts, 2).flatten(1, 2) for parts in zip(*of_each))
    return out, lse


def _kernel(q: Tensor, k: Tensor, v: Tensor, bias: Tensor, scale: float) -> tuple[Tensor, Tensor]:
    if q.device.type == "cpu":
        return torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(q, k, v, attn_mask=bias, scale=scale)
    bias, width = bias.expand(*q.shape[:3], k.shape[2]), q.shape[3]
    out, lse, *_ = torch.ops.aten._scaled_dot_product_efficient_attention(*aligned(q, k, v), bias, True, scale=scale)
    return out[..., :width], lse[..., : q.shape[2]]  # which is padded


def as_bias(mask: Tensor, dtype: torch.dtype) -> Tensor:
    """The additive form of a mask, in its shape: 0 where it is true, else minus infinity.

    It is a view of rows that begin at multiples of 16, as the kernels on GPUs want them.
    """
    padded = F.pad(mask, (0, -mask.shape[-1] % 16))
    return torch.zeros(padded.shape, dtype=dtype, device=mask.device).masked_fill_(~padded, -torch.inf)[
        ..., : mask.shape[-1]
    ]
