"""The measurements for GPUs, run small on the CPU: what is counted is right, and every row has its line."""

import pytest

from mgpo.tools.plan.shape import measure_shape
from tests.performance import gpu
from tests.performance.gpu_limits import PEAK, RATE, Counted
from tests.performance.gpu_model import config_of

BILLION = 1e9


@pytest.fixture(scope="module", params=["3b", "7b"])
def counted(request):
    return request.param, Counted(measure_shape(config_of(request.param)), request.param == "3b", True, True)


def test_limits_are_those_of_the_published_sizes(counted):
    """By the models' cards and the maker's data sheet."""
    size, limits = counted
    weights = {"3b": 3.09, "7b": 6.53}[size]
    assert limits.language / BILLION == pytest.approx(weights, rel=0.01)
    assert limits.update(1000) == pytest.approx(6 * weights * BILLION * 1000 / PEAK, rel=0.01)
    assert limits.tower(8 * 1280) == pytest.approx(0.052, rel=0.03)
    states = {"3b": 36, "7b": 56}[size] * 1024
    assert limits.decode(64, 1000) - limits.decode(64, 0) == pytest.approx(64_000 * states / RATE)
    whole = {"3b": 3.09, "7b": 7.07}[size]  # a head is read for every token, whether it is tied or not
    assert limits.decode(64, 0) == pytest.approx(2 * whole * BILLION / RATE, rel=0.01)


def test_a_step_is_the_sum_of_its_parts(counted):
    limits = counted[1]
    parts = limits.forward(1000) + limits.tower(640) + 10 * limits.decode(4, 255) + limits.update(1040)
    assert limits.step(1000, 640, 4, [(10, 250)], 1040, False) == pytest.approx(parts)
    assert limits.step(1000, 640, 4, [(10, 250)], 1040, True) == pytest.approx(parts + limits.forward(1040))


def test_rows_are_measured_one_by_one(monkeypatch, capsys):
    """Of a row that fails the reason is told, and the others stay."""

    def broken(bench):
        """A row without its kernel."""
        raise RuntimeError("no kernel")

    monkeypatch.setitem(gpu.ROWS, "tower", broken)
    lines = gpu.run(["tower", "decode", "update", "--device", "cpu", "--size", "tiny"])
    assert lines[0].measured == "failed: RuntimeError: no kernel"
    assert [line.what.split(",")[0] for line in lines[1:]] == ["decode step", "update"]
    assert all(line.share > 0 for line in lines[1:])
    said = capsys.readouterr().out
    assert "aten::mm" in said and said.count("8 decode steps") == 1  # where the time goes


@pytest.mark.filterwarnings("ignore:Total length of `list` across ranks is zero")
def test_steps_of_both_kinds_are_measured():
    *lines, _ = gpu.run(["steps", "tower", "--device", "cpu", "--size", "tiny", "--no-profile"])
    assert [line.what for line in lines[:2]] == ["step, 2 turns, penalty, in process", "step, 1 turn, in process"]
    assert all("rollout" in line.measured and "update" in line.measured for line in lines[:2])


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:Total length of `list` across ranks is zero")
def test_every_row_has_its_line():
    lines = gpu.run(["--device", "cpu", "--size", "tiny", "--no-profile"])
    assert len(lines) == 6 + 1 + 1 + 1 + 1 + 2 + 1 + 2
    assert not [line for line in lines if line.measured.startswith("failed")]
