"""What a stretch of work amounts to: rates by phase, shares of time, memory and utilisation."""

import os
import sys
import time
from dataclasses import dataclass

import torch

from mgpo.training.phase_timer import Work

GB = 10**9


@dataclass(frozen=True)
class Lap:
    """One rank's work between two moments."""

    seconds: float
    cpu_seconds: float  # of the process, all threads
    phases: dict[str, Work]


class Stopwatch:
    """Laps of wall time and process time."""

    def __init__(self) -> None:
        self.restart({})

    def restart(self, phases: dict[str, Work]) -> None:
        """Begin a lap at these totals of the phases, as the timer reads them."""
        self.wall, self.cpu, self.phases = time.perf_counter(), time.process_time(), phases

    def lap(self, phases: dict[str, Work]) -> Lap:
        """End the lap at these totals, give what was done in it, and begin the next."""
        done = {name: work.since(self.phases.get(name, Work())) for name, work in phases.items()}
        lap = Lap(time.perf_counter() - self.wall, time.process_time() - self.cpu, done)
        self.restart(phases)
        return lap


def training_speed(laps: list[Lap]) -> dict[str, float]:
    """Of one training step on all ranks: tokens and trajectories are added up, seconds are their mean.

    `tokens_per_s` is over the whole step and counts sampled tokens; the rates of a phase are over its own
    seconds, and missing where it took none. `outside_share` is what no phase took: waiting for data, other
    callbacks, logging, checkpoints.
    """
    seconds = _mean([lap.seconds for lap in laps])
    rollout, update = (_all([lap.phases.get(name, Work()) for lap in laps]) for name in ("rollout", "update"))
    judging = {name: _all([lap.phases.get(name, Work()) for lap in laps]).seconds for name in ("evidence", "teacher")}
    numbers = {
        "tokens_per_s": rollout.sampled / seconds,
        "shown_tokens_per_s": rollout.shown / seconds,
        "seconds_per_step": seconds,
        "rollout_share": rollout.seconds / seconds,
        "update_share": update.seconds / seconds,
        "outside_share": max(0.0, 1 - (rollout.seconds + update.seconds + sum(judging.values())) / seconds),
    }
    numbers |= {f"{name}_share": spent / seconds for name, spent in judging.items() if spent}
    return numbers | phase_rates("rollout", rollout) | phase_rates("update", update)


def evaluation_speed(works: list[Work]) -> dict[str, float]:
    """The rates of one evaluation over all ranks.

    The questions that are asked of sub-images alone take time, but aren't counted.
    """
    return phase_rates("evaluation", _all(works))


def phase_rates(name: str, work: Work) -> dict[str, float]:
    """Per second of that phase: sampled tokens, shown tokens where they were counted, and trajectories."""
    counts = {"tokens": work.sampled, "shown_tokens": work.shown, "trajectories": work.trajectories}
    return {f"{name}_{unit}_per_s": n / work.seconds for unit, n in counts.items() if n and work.seconds}


def cpu_use(lap: Lap) -> float:
    """Process time over wall time and cores that the process may use: 1 is all of them, all of the time."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return lap.cpu_seconds / lap.seconds / cores


def peak_memory(device: torch.device) -> dict[str, float]:
    """Peaks since the process began, in GB (10^9 bytes): resident, and on a GPU what torch allocated."""
    import resource  # not on every system, and whoever doesn't measure shouldn't miss it

    unit = 1 if sys.platform == "darwin" else 1024  # of ru_maxrss, in bytes
    peaks = {"resident_gb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / GB}
    if device.type == "cuda":
        peaks["gpu_gb"] = torch.cuda.max_memory_allocated(device) / GB
    return peaks


def gpu_use(device: torch.device) -> float | None:
    """Share of the last moments in which a kernel ran; None where the driver's library doesn't say."""
    if device.type != "cuda":
        return None
    try:
        return torch.cuda.utilization(device) / 100
    except Exception:  # no bindings, or whatever the driver's library raises: a gauge doesn't end a run
        return None


def _all(works: list[Work]) -> Work:
    return Work(
        _mean([work.seconds for work in works]),
        sum(work.sampled for work in works),
        sum(work.shown for work in works),
        sum(work.trajectories for work in works),
    )


def _mean(values: list[float]) -> float:
    return sum(values) / len(values)
