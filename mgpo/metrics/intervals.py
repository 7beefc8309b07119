"""Intervals: of one share, and of a difference between two answers to the same questions."""

import math
from collections.abc import Sequence

import numpy as np

Z95 = 1.959964
RESAMPLES = 10_000


def wilson(successes: int, n: int) -> tuple[float, float]:
    """Wilson's 95 % interval of a share (J. Am. Stat. Assoc. 22, 1927): inside [0, 1], sound for small n."""
    if n == 0:
        return (0.0, 1.0)
    p, z = successes / n, Z95
    centre = p + z * z / (2 * n)
    half = z * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    scale = 1 + z * z / n
    return (max(0.0, (centre - half) / scale), min(1.0, (centre + half) / scale))


def paired_bootstrap(differences: Sequence[float], resamples: int = RESAMPLES) -> tuple[float, float]:
    """The 95 % percentile interval of a mean of paired differences (Efron, Ann. Stat. 7, 1979), over questions."""
    values = np.asarray(differences, float)
    if not len(values):
        return (-math.inf, math.inf)
    rng = np.random.default_rng(0)  # the same interval whenever it is asked for
    means = [values[rng.integers(len(values), size=len(values))].mean() for _ in range(resamples)]
    low, high = np.quantile(means, [0.025, 0.975])
    return (float(low), float(high))
