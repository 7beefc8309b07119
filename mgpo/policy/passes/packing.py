"""Who sees whom in one packed sequence: prompts that groups share, then the rows that continue them, without padding.

A continuation sees its own prompt and, causally, itself; a prompt sees itself, and so does a conversation that begins
anew behind a continuation. Nothing here computes: the kernels of
`mgpo.policy.passes.attention` take their pieces from these descriptions, on every device the same ones.

Shapes: M tokens that are asked for.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import accumulate, groupby, pairwise

import torch
from torch import Tensor

from mgpo.utils.allocator import moved

CPU = torch.device("cpu")


@dataclass(frozen=True, eq=False)
class Looks:
    """Pieces of queries, and for each the keys that it sees: all of them, or, where `causal`, those up to itself.

    A causal piece has as many queries as keys. No piece is empty.
    """

    queries: Sequence[slice]
    keys: Sequence[slice]
    causal: bool
    device: torch.device = CPU

    @cached_property
    def query_index(self) -> slice | Tensor:
        """The places of all queries: one slice where the pieces follow each other."""
        return _index(self.queries, self.device)

    @cached_property
    def key_index(self) -> slice | Tensor:
        """The places of all keys: one slice where the pieces follow each other."""
        return _index(self.keys, self.device)

    @cached_property
    def query_ends(self) -> Tensor:
        """Where each piece begins and ends once they are laid one after the other: (pieces + 1,) in int32."""
        return _ends(self.queries, self.device)

    @cached_property
    def key_ends(self) -> Tensor:
        """The same of the pieces' keys: (pieces + 1,) in int32."""
        return _ends(self.keys, self.device)

    @cached_property
    def most_queries(self) -> int:
        """Queries of the longest piece."""
        return max(map(_length, self.queries))

    @cached_property
    def most_keys(self) -> int:
        """Keys that the piece with the most of them sees."""
        return max(map(_length, self.keys))

    @cached_property
    def by_length(self) -> list[tuple[int, slice | Tensor]]:
        """Lengths of pieces, and the places of all queries in pieces of that length."""
        return [(length, _index(spans, self.device)) for length, spans in _sorted(self.queries)]

    @cached_property
    def from_lengths(self) -> Tensor:
        """The place of each query among all queries, once these are sorted by the length of their piece: (queries,)."""
        spans = [span for _, same in _sorted(self.queries) for span in same]
        return moved(torch.cat([torch.arange(span.start, span.stop) for span in spans]).argsort(), self.device)


@dataclass(frozen=True)
class Packing:
    """How one sequence is made up: all prompts one after the other, all continuations, prompt by prompt, and what
    begins anew.

    Args:
        prompts: Tokens of each prompt.
        rows: For each prompt the tokens of the continuations that share it.
        loss_positions: Places of the tokens whose states are wanted of the last layer, in this order, none of them in
            a prompt.
        anew: Tokens of each conversation that continues no prompt.
    """

    prompts: Sequence[int]
    rows: Sequence[Sequence[int]]
    loss_positions: Sequence[int]
    device: torch.device = field(default_factory=lambda: CPU)
    anew: Sequence[int] = ()

    @cached_property
    def prompt_spans(self) -> list[slice]:
        """Where each prompt lies in the sequence."""
        return _spans(self.prompts, 0)

    @cached_property
    def group_spans(self) -> list[slice]:
        """Where all continuations of each prompt lie in the sequence, as one piece."""
        return _spans([sum(lengths) for lengths in self.rows], sum(self.prompts))

    @cached_property
    def row_spans(self) -> list[slice]:
        """Where each continuation lies in the sequence, prompt by prompt."""
        return _spans([length for lengths in self.rows for length in lengths], sum(self.prompts))

    @cached_property
    def anew_spans(self) -> list[slice]:
        """Where each conversation that begins anew lies in the sequence."""
        return _spans(self.anew, sum(self.prompts) + sum(map(sum, self.rows)))

    @cached_property
    def asked_M(self) -> Tensor:
        """The `loss_positions` as a tensor on the device, (M,)."""
        return moved(torch.tensor(self.loss_positions, dtype=torch.long), self.device)

    @cached_property
    def looks(self) -> list[Looks]:
        """First each prompt's and row's at itself, up to every token, then the rows' at their prompts."""
        own = [span for span in (*self.prompt_spans, *self.row_spans, *self.anew_spans) if _length(span)]
        back = [
            (rows, prompt)
            for rows, prompt in zip(self.group_spans, self.prompt_spans)
            if _length(rows) * _length(prompt)
        ]
        at_prompts = Looks([rows for rows, _ in back], [prompt for _, prompt in back], False, self.device)
        return [Looks(own, own, True, self.device), *([at_prompts] if back else [])]


def pieces(ends: Tensor) -> Looks:
    """Looks of pieces at themselves, given where they begin and end, on the device of `ends`."""
    spans = [slice(a, b) for a, b in pairwise(ends.tolist()) if b > a]
    return Looks(spans, spans, False, ends.device)


def _length(span: slice) -> int:
    return span.stop - span.start


def _sorted(spans: Sequence[slice]) -> list[tuple[int, list[slice]]]:
    return [(length, list(same)) for length, same in groupby(sorted(spans, key=_length), key=_length)]


def _spans(lengths: Sequence[int], start: int) -> list[slice]:
    return [slice(a, b) for a, b in pairwise(accumulate(lengths, initial=start))]


def _index(spans: Sequence[slice], device: torch.device) -> slice | Tensor:
    if all(a.stop == b.start for a, b in pairwise(spans)):
        return slice(spans[0].start, spans[-1].stop)
    return moved(torch.cat([torch.arange(span.start, span.stop) for span in spans]), device)


def _ends(spans: Sequence[slice], device: torch.device) -> Tensor:
    return moved(torch.tensor(list(accumulate(map(_length, spans), initial=0)), dtype=torch.int32), device)
