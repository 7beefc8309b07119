"""Tables that commands and callbacks print: none goes over the terminal's edge, and no row wraps."""

import pytest

from mgpo.callbacks import crop_swaps
from mgpo.evaluation.counterfactuals import SWAPS
from mgpo.evaluation.scoring.published import as_text
from mgpo.metrics import CROP, NO_TOOLS
from mgpo.tools.leaks import command as leaks
from mgpo.utils.terminal_tables import first_that_fits

RUNS = {
    "this run": {"V*": 55.0, "HR-4K": 60.1, "FSC-147": 12.0},
    "this run, step 80": {"V*": 70.0, "HR-4K": 66.6, "FSC-147": 34.0},
    "this run, step 80, read as VLMEvalKit does": {"V*": 71.0},
}


@pytest.mark.parametrize("width", [60, 80, 120])
def test_runs_beside_published_figures(width):
    table = as_text(RUNS, {"this run": {"V*": "188 of 191"}}, width=width)
    lines = table.splitlines()
    assert max(map(len, lines)) <= width
    for figure in ("55.0", "70.0", "71.0"):
        assert sum(figure in line and "this run" in line for line in lines) == 1
    assert sum("(188 of 191)" in line for line in lines) == 1


@pytest.mark.parametrize("width", ["80", "120"])
def test_what_stands_in_place_of_the_crop(width, monkeypatch):
    monkeypatch.setenv("COLUMNS", width)
    numbers = {"accuracy": 0.875, "drop": 0.123, "drop_interval": (-0.012, 0.345), "gain": 20, "harm": 12}
    splits = {"val": dict.fromkeys((CROP, *SWAPS, NO_TOOLS), numbers)}
    table = first_that_fits(crop_swaps._table(splits, between) for between in (" ", "\n"))
    assert max(map(len, table.splitlines())) <= int(width)
    assert table.count("0.875") == len(SWAPS) + 2 and table.count("(-0.012 to 0.345)") == len(SWAPS) + 1
    assert all(f"val: {name}" in table for name in (CROP, *SWAPS, NO_TOOLS))


@pytest.mark.parametrize("width", ["80", "120"])
def test_leaks_of_long_names(width, monkeypatch):
    monkeypatch.setenv("COLUMNS", width)
    found = [leaks.Leak("V*", f"{'test' * 40}[/b]", "train" * 40, "pixels", 0)] * 3
    table = leaks._table(found, {"leaking": 3, "test": 191, "train": 20000})
    assert max(map(len, table.splitlines())) <= int(width)
    assert sum("testtest" in line and "pixels" in line for line in table.splitlines()) == 3
    assert sum("traintrain" in line for line in table.splitlines()) == 3
