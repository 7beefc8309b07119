"""One-token passes replayed as CUDA graphs: hundreds of small kernels take longer to launch than to run.

Only a few numbers of rows are passed, so that there are few graphs; rows that have ended fill them up. A graph knows
addresses, not tensors: it holds for the buffers of one reply, as long as they do not grow.
"""

import warnings
import weakref
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import cache
from typing import Any, ClassVar

import torch
from torch import Tensor

from mgpo.policy.base import Policy

Run = Callable[[], Tensor]
SHOWN = 200  # characters of a complaint


def usable(policy: Policy) -> bool:
    """Whether one-token passes can be captured: on a GPU, with weights that stay where they are."""
    return policy.device.type == "cuda" and policy.fixed and not policy.is_gathered


def capture(run: Run, pool: Any, device: torch.device) -> tuple[Run, Any]:
    """What replays the kernels of a function, which has run before, and returns its result.

    Args:
        run: Passes on that device.
        pool: Memory of earlier graphs, or None; the second result is what to give the next one.
        device: The GPU; the process's current one may be another, on which nothing would be captured.

    Raises:
        RuntimeError: Where it does something that can't be replayed, such as waiting for the device.
    """
    pool = pool or torch.cuda.graph_pool_handle()
    with torch.cuda.device(device):
        graph, stream = torch.cuda.CUDAGraph(), _side_stream(device)
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            graph.capture_begin(pool, capture_error_mode="thread_local")  # other threads may be busy
            try:
                result = run()
            finally:
                try:
                    graph.capture_end()
                except RuntimeError:  # raised before the allocator hears that the capture has ended
                    with suppress(RuntimeError, AttributeError):  # of a torch before 2.8
                        torch._C._cuda_endAllocateToPool(torch.cuda.current_device(), pool)
                    raise
        torch.cuda.current_stream().wait_stream(stream)

    def replay() -> Tensor:
        with torch.cuda.device(device):
            graph.replay()
        return result

    return replay, pool


@cache
def _side_stream(device: torch.device) -> torch.cuda.Stream:
    # One for all: libraries keep a workspace for every stream, and lose it with a graph of that stream; an engine's
    # graphs, whose streams have no priority, need theirs.
    return torch.cuda.Stream(device, priority=-1)


class Steps:
    """Passes over one token a row, whose number of rows goes down.

    The first pass over a number of rows is a plain one, which has kernels loaded and memory laid out; the second one is
    captured. Where that fails, all passes are plain. Graphs of an earlier reply, which may have been broken off, go
    before another's are captured: libraries' workspaces lie in the memory of the first.

    Args:
        run: The pass over the first rows, from their ids and positions (N,); what it reads besides stays in its place.
        rows: At most.
    """

    latest: ClassVar["weakref.ref[Steps] | None"] = None  # whose passes were captured

    def __init__(self, run: Callable[[Tensor, Tensor], Tensor], rows: int, device: torch.device) -> None:
        self.run, self.sizes = run, halves(rows)
        self.id_N, self.position_N = torch.zeros(2, rows, dtype=torch.long, device=device)
        self.width = 0
        self.replays: dict[int, Run | None] = {}  # by number of rows; None once there was a plain pass
        self.pool: Any = None
        self.failed = False

    def size(self, rows: int) -> int:
        """How many rows are passed in the place of so many."""
        return min(size for size in self.sizes if size >= rows)

    def __call__(self, id_N: Tensor, position_N: Tensor, width: int) -> Tensor:
        """What these rows' tokens come to, while the buffers have that width."""
        if width != self.width:
            self.width = width
            self.forget()
        rows, size = len(id_N), self.size(len(id_N))
        self.id_N[:rows].copy_(id_N)
        self.position_N[:rows].copy_(position_N)
        return self._pass(size)[:rows]

    def forget(self) -> None:
        """Let go of all graphs and of their memory."""
        self.replays, self.pool = {}, None

    def _pass(self, size: int) -> Tensor:
        def run() -> Tensor:
            return self.run(self.id_N[:size], self.position_N[:size])

        replay = self.replays.get(size)
        if replay is None and size in self.replays and not self.failed:
            before = Steps.latest() if Steps.latest is not None else None
            if before is not None and before is not self:
                before.forget()
            Steps.latest = weakref.ref(self)
            try:
                replay, self.pool = capture(run, self.pool, self.id_N.device)
            except RuntimeError as error:  # an operation that can't be captured, or no memory for one more graph
                self.failed = True
                why = " ".join(str(error).split())[:SHOWN]
                warnings.warn(f"tokens are drawn without CUDA graphs, which is slower: {why}", stacklevel=2)
        self.replays[size] = replay
        return run() if replay is None else replay()


def halves(rows: int) -> Sequence[int]:
    """The numbers of rows for which passes are captured: all, half of them, a quarter … down to 4.

    So at least half of the rows of a pass are wanted.
    """
    sizes = [rows]
    while sizes[-1] > 4:
        sizes.append(-(-sizes[-1] // 2))
    return sizes
