"""Two programs side by side in one run, and the rows of the table that comes of it."""

import statistics
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from torch import Tensor

from tests.performance.live import Live

Program = Callable[[], object]


class Skipped(Exception):
    """A row can't be measured here; the message says what is missing, in one sentence."""


@dataclass(frozen=True)
class Options:
    """What a row is told. `pairs`: how often the two programs are run; `trl_python`: the interpreter that has TRL."""

    pairs: int = 7
    trl_python: str | None = None


@dataclass(frozen=True)
class Pairs:
    """Seconds of two programs that took turns."""

    ours: tuple[float, ...]
    theirs: tuple[float, ...]

    @property
    def ratios(self) -> list[float]:
        """How many times faster ours was, pair by pair: what slows the machine down for a while hits both."""
        return [b / a for a, b in zip(self.ours, self.theirs, strict=True)]


@dataclass(frozen=True)
class Row:
    """One line of the table; `target` is what `ratio` should be at least, or at most, where anything is aimed at."""

    what: str
    against: str
    ratio: float
    low: float
    high: float
    ours: str
    theirs: str
    target: float | None
    at_least: bool = True

    @property
    def aim(self) -> str:
        """The target, and whether it was missed."""
        if self.target is None:
            return ""
        met = self.ratio >= self.target if self.at_least else self.ratio <= self.target
        return f"{'≥' if self.at_least else '≤'} {self.target:g}{'' if met else ', missed'}"


def run_pairs(ours: Program, theirs: Program, pairs: int, warm_up: int = 1) -> Pairs:
    """Run both in turn; who begins changes from pair to pair, so that neither always comes second."""
    for _ in range(warm_up):
        ours()
        theirs()
    seconds: dict[bool, list[float]] = {True: [], False: []}
    for number in range(pairs):
        for mine in (number % 2 == 0, number % 2 == 1):
            seconds[mine].append(timed(ours if mine else theirs))
    return Pairs(tuple(seconds[True]), tuple(seconds[False]))


def timed(program: Program) -> float:
    """Seconds of one run."""
    began = time.perf_counter()
    program()
    return time.perf_counter() - began


def peak_bytes(program: Program, held: Iterable[Tensor]) -> int:
    """The most that all tensors took at once, besides those held before: every storage is counted, exactly."""
    with Live(held) as live:
        program()
    return live.peak


def faster(what: str, against: str, target: float | None, pairs: Pairs, unit: str = "s", amount: float = 1.0) -> Row:
    """How many times faster, by the median of the pairs; medians are seconds, or `amount` of a unit by seconds."""
    low, high = spread(pairs.ratios)
    medians = [statistics.median(seconds) for seconds in (pairs.ours, pairs.theirs)]
    shown = [f"{m:.3g} {unit}" if unit == "s" else f"{amount / m:.3g} {unit}" for m in medians]
    return Row(what, against, statistics.median(pairs.ratios), low, high, *shown, target)


def smaller(what: str, against: str, target: float, ours: int, theirs: int) -> Row:
    """What share of their memory; counted, so there is no spread."""
    ratio = ours / theirs
    shown = [f"{size / 1e6:,.0f} MB" for size in (ours, theirs)]
    return Row(what, against, ratio, ratio, ratio, *shown, target, at_least=False)


def spread(values: Sequence[float]) -> tuple[float, float]:
    """The smallest and the largest."""
    return min(values), max(values)


def table(rows: Sequence[Row]) -> str:
    """The rows in Markdown."""
    lines = ["| what | against | ratio (spread) | target | ours | theirs |", "|---|---|---|---|---|---|"]
    for row in rows:
        between = f" ({row.low:.2f} to {row.high:.2f})" if row.low < row.high else ""
        cells = [row.what, row.against, f"{row.ratio:.2f}{between}", row.aim, row.ours, row.theirs]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)
