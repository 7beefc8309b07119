"""A metric over a run: its start, its recent level, and whether it fell."""

import math
from dataclasses import dataclass, field

import numpy as np


@dataclass
class Curve:
    """One value at each of some optimiser steps. Levels are means over a window: single steps are noise."""

    steps: list[int] = field(default_factory=list)
    values: list[float] = field(default_factory=list)

    def start(self, window: int) -> float:
        """The mean of the first values; not a number before as many more have come."""
        return float(np.mean(self.values[:window])) if len(self.values) >= 2 * window else math.nan

    def recent(self, window: int) -> float:
        """The mean of the last values; not a number before there are so many."""
        return float(np.mean(self.values[-window:])) if len(self.values) >= window else math.nan

    def fall(self, window: int, share: float) -> tuple[float, float, int] | None:
        """The recent level, the best one before and the step at which that ended, if the one is far below the other.

        Far is by `share` of the best and by more than four standard errors of the difference of the two means,
        from the scatter inside both windows.
        """
        values = np.asarray(self.values)
        if len(values) < 2 * window:
            return None
        sums = np.concatenate([[0.0], values.cumsum()])
        earlier = (sums[window:-window] - sums[: -2 * window]) / window
        first = int(earlier.argmax())
        best, recent = float(earlier[first]), self.recent(window)
        noise = 4 * math.sqrt((values[first : first + window].var(ddof=1) + values[-window:].var(ddof=1)) / window)
        fell = best > 0 and recent < (1 - share) * best and recent < best - noise
        return (recent, best, self.steps[first + window - 1]) if fell else None
