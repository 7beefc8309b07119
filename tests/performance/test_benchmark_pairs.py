"""The arithmetic of the measurements: pairs, ratios, the table, and times by phase."""

import sys

import pytest
import torch

from tests.performance import pairs as harness
from tests.performance.outside import PHASES
from tests.performance.pairs import Pairs, Row, faster, peak_bytes, run_pairs, smaller, table
from tests.performance.profile import Timers
from tests.performance.protocol import Stepper


class PhaseTimer:
    """Stands still unless it is moved."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now

    def wait(self, seconds: float) -> None:
        self.now += seconds


def test_programs_take_turns_and_the_warm_up_does_not_count(monkeypatch):
    clock = PhaseTimer()
    monkeypatch.setattr(harness.time, "perf_counter", clock)
    run: list[str] = []

    def ours():
        run.append("ours")
        clock.wait(2.0 if len(run) > 2 else 100.0)

    def theirs():
        run.append("theirs")
        clock.wait(6.0)

    found = run_pairs(ours, theirs, pairs=3, warm_up=1)
    assert run == ["ours", "theirs", "ours", "theirs", "theirs", "ours", "ours", "theirs"]
    assert found == Pairs((2.0,) * 3, (6.0,) * 3)


def test_the_ratio_is_the_median_over_pairs_and_not_that_of_medians():
    pairs = Pairs((1.0, 2.0, 4.0), (3.0, 5.0, 40.0))
    row = faster("a", "b", 3, pairs, "rollouts/s", amount=64)
    assert (row.ratio, row.low, row.high) == (3.0, 2.5, 10.0)
    assert (row.ours, row.theirs) == ("32 rollouts/s", "12.8 rollouts/s")


@pytest.mark.parametrize(
    ("row", "aim"),
    [
        (Row("", "", 2.9, 2, 3, "", "", 3), "≥ 3, missed"),
        (Row("", "", 3.0, 2, 4, "", "", 3), "≥ 3"),
        (Row("", "", 0.61, 0.6, 0.7, "", "", 0.6, at_least=False), "≤ 0.6, missed"),
        (smaller("", "", 0.6, 6, 10), "≤ 0.6"),
        (Row("", "", 1.0, 1, 1, "", "", None), ""),
    ],
)
def test_a_target_is_met_or_missed(row, aim):
    assert row.aim == aim


def test_the_table_says_what_was_measured_on_both_sides():
    rows = [faster("step", "TRL", 3, Pairs((1.0, 1.0), (2.0, 4.0))), smaller("pass", "rows", 0.6, 3_000_000, 6_000_000)]
    assert table(rows).splitlines()[2:] == [
        "| step | TRL | 3.00 (2.00 to 4.00) | ≥ 3 | 1 s | 3 s |",
        "| pass | rows | 0.50 | ≤ 0.6 | 3 MB | 6 MB |",
    ]


def test_the_peak_is_of_what_lives_at_the_same_time():
    held = torch.zeros(1000)

    def program():
        for _ in range(3):
            held.add_(torch.ones(1000))  # two of 4,000 bytes never live at once
        torch.cat([torch.ones(500), torch.ones(500)])

    assert peak_bytes(program, [held]) == 8000


def test_time_belongs_to_the_innermost_phase():
    clock = PhaseTimer()
    timers = Timers(clock)

    class Model:
        def inner(self):
            clock.wait(3.0)

        def outer(self):
            clock.wait(1.0)
            self.inner()
            clock.wait(1.0)

    original = Model.outer
    with timers.wrapped([(Model, "inner", "inner"), (Model, "outer", lambda timers, args: f"in {timers.running[-1]}")]):
        clock.wait(0.5)
        Model().outer()
    timers.charge()
    assert dict(timers.seconds) == {"elsewhere": 0.5, "in elsewhere": 2.0, "inner": 3.0}
    assert Model.outer is original


def test_a_trainer_that_fails_says_why():
    with pytest.raises(RuntimeError, match="No module named"):
        Stepper(sys.executable, "tests.performance.no_such_trainer")


def test_the_phases_of_a_step_are_functions_that_there_are():
    assert [name for owner, name, _ in PHASES if not callable(getattr(owner, name, None))] == []
