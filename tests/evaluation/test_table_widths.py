"""Tables that commands and callbacks print: none goes over the edge, no row wraps, sentences fold in their column."""

import pytest

from mgpo.callbacks import crop_swaps
from mgpo.evaluation.counterfactuals import SWAPS
from mgpo.evaluation.published import as_text
from mgpo.metrics import CROP, NO_TOOLS
from mgpo.tools.doctor.case import Result
from mgpo.tools.doctor.preflight import table as preflight
from mgpo.tools.leaks import command as leaks
from mgpo.tools.overview import command as overview
from mgpo.utils.terminal_tables import first_that_fits, render

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


WEIGHT = "model.language_model.layers.35.self_attn.q_proj.lora_A.default.weight"
CHECKS = [
    Result("weights", True, "all 312 are numbers"),
    Result("trainer = stock model", False, f"a step moves neither {WEIGHT} nor {WEIGHT * 2}, which is to be trained"),
    Result("memory", None, "no device whose memory is known; `mgpo plan --memory 80` plans for one [80 GB]"),
]


@pytest.mark.parametrize("width", [60, 80, 120])
def test_sentences_of_checks_fold_in_their_own_column(width):
    lines = preflight(CHECKS, width).splitlines()
    assert max(map(len, lines)) <= width
    (head,) = [line for line in lines if "which means" in line]
    start = head.index("which means")
    for check, sign in zip(CHECKS, ("passed", "FAILED", "skipped")):
        (first,) = [i for i, line in enumerate(lines) if line.split("  ")[0].strip() == check.name]
        assert lines[first][:start].split() == [*check.name.split(), sign]
        rest = next((i for i in range(first + 1, len(lines)) if lines[i][:start].strip()), len(lines))
        told = "".join(line[start:].replace(" ", "") for line in lines[first:rest])
        assert told == check.text.replace(" ", "")


@pytest.mark.parametrize("width", [80, 120])
def test_what_data_are_is_told_whole(width):
    path = f"/data/{'deep/' * 25}rows.jsonl"
    counts = {"by_split": {"val": 12000}, "by_source": {path: 12000}, "by_category": {}, "answers": {}}
    found = {"count": 12000, "examples": [f"{path}: it is no picture"]}
    tables = [overview._counts(counts), *overview._left_out({"left_out": {"the picture can't be opened": found}})]
    for table in tables:
        text = render(table, width)
        assert max(map(len, text.splitlines())) <= width
        assert text.count("12,000") == sum("12,000" in line for line in text.splitlines()) > 0
        words = "".join(line.split("│")[-3 if table is tables[0] else -2] for line in text.splitlines() if "│" in line)
        assert path in words.replace(" ", "")
