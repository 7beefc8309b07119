"""A timer by phase: how long rollouts, updates and evaluations take, and how many tokens go through them."""

import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import astuple, dataclass

from mgpo.types import Trajectory


@dataclass
class Work:
    """What one phase has done so far."""

    seconds: float = 0.0
    sampled: int = 0  # tokens of replies
    shown: int = 0  # tokens of prompts; one that several trajectories share counts once
    trajectories: int = 0

    def add(self, trajectories: Sequence[Trajectory]) -> None:
        """Count these trajectories and their tokens."""
        prompts = {id(turn.prompt): turn.prompt for t in trajectories for turn in t.turns}
        self.sampled += sum(len(turn.reply.ids) for t in trajectories for turn in t.turns)
        self.shown += sum(len(prompt.ids) for prompt in prompts.values())
        self.trajectories += len(trajectories)

    def since(self, before: "Work") -> "Work":
        """What came after an earlier state of the same phase."""
        return Work(*(now - then for now, then in zip(astuple(self), astuple(before))))


class PhaseTimer:
    """Adds up what is done in each phase, over the whole run. It decides nothing and draws nothing.

    Set `wait` to have it called where a phase begins and ends: kernels of a GPU run on after the call
    that started them, so without `torch.cuda.synchronize` their time may fall into the next phase.
    """

    def __init__(self) -> None:
        self.phases: dict[str, Work] = defaultdict(Work)
        self.wait: Callable[[], object] | None = None

    @contextmanager
    def phase(self, name: str) -> Iterator[Work]:
        """The seconds of this block belong to that phase; an exception in it ends it too."""
        work, start = self.phases[name], self._now()
        try:
            yield work
        finally:
            work.seconds += self._now() - start

    def read(self) -> dict[str, Work]:
        """A copy of the totals, to be compared with later ones."""
        return {name: Work(*astuple(work)) for name, work in self.phases.items()}

    def _now(self) -> float:
        if self.wait is not None:
            self.wait()
        return time.perf_counter()
