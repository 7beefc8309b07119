"""The report's table: as wide as the terminal, in the README's order, with intervals of what was gained."""

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

from mgpo.callbacks.report_writer import ReportWriter
from mgpo.evaluation.report import ALL, differences, format_report, summarise
from tests.conftest import make_record

CATEGORIES = ("attribute", "attribute, large", "relative_position", "relative_position, large")
LONG = "Perception/Autonomous driving/objects that are counted in the distance"


def records(right, categories=CATEGORIES):
    """Four questions of each category in two splits, of which the first `right` are answered."""
    return [
        make_record(f"{split}{category}{i}", split=split, category=category, right=i < right, subimage_right=i < right)
        for split in ("ood", "val")
        for category in categories
        for i in range(4)
    ]


def tables(width, categories=CATEGORIES):
    """As `validate` prints it, and as `fit` does at its end."""
    before, after = records(1, categories), records(3, categories)
    gained = differences(after, before)
    return [
        format_report(summarise(after), width=width),
        format_report(summarise(after), summarise(before), gained, width),
    ]


@pytest.mark.parametrize("width", [40, 60, 80, 120])
@pytest.mark.parametrize("categories", [CATEGORIES, (*CATEGORIES, LONG)])
def test_no_row_goes_over_the_edge_or_onto_a_second_line(width, categories):
    for table in tables(width, categories):
        assert max(map(len, table.splitlines())) <= width
        rows = [line.split() for line in table.splitlines() if "0.750" in line]  # of which each is whole
        assert len(rows) == 2 * (len(categories) + 1) and all(row[0] != "0.750" for row in rows)
        assert sum(row[:2] in (["val:", "all"], ["ood:", "all"]) for row in rows) == 2
        assert sum(row[0][:10] == "Perception" for row in rows) == 2 * (LONG in categories)


@pytest.mark.parametrize("width", [80, 120])
def test_every_name_and_share_of_the_readme_is_there_whole(width):
    for table in tables(width):
        for words in (*CATEGORIES, "val: all", "ood: all", "accuracy", "valid boxes", "sub-image alone"):
            assert words in table
        assert "…" not in table


def test_rows_stand_in_the_readmes_order():
    """All first, then the categories, those of large marks last; validation before what is out of distribution."""
    table = tables(80)[0]
    order = ["val: all", "attribute ", "relative_position ", "attribute, large", "relative_position, large", "ood: all"]
    places = [table.index(words) for words in order]
    assert places == sorted(places)


@pytest.mark.parametrize("width", [80, 120])
def test_what_was_gained_has_an_interval(width):
    table = tables(width)[1]
    assert "0.250 → 0.750" in table
    low, high = differences(records(3), records(1))["val", ALL, "accuracy"]
    assert 0 < low < 0.5 < high < 1 and f"({100 * low:+.0f} to {100 * high:+.0f})" in table


def test_questions_without_a_category_count_once():
    """Counted twice, they would have made what was gained look surer than it is."""
    named, unnamed = (differences(records(3, (name,)), records(1, (name,))) for name in ("attribute", ""))
    assert unnamed["val", ALL, "accuracy"] == unnamed["val", "", "accuracy"] == named["val", ALL, "accuracy"]
    some = records(3, ("", "attribute"))
    table = format_report(summarise(some), summarise(some), differences(some, some), 80)
    assert table.count("val: all") == table.count("ood: all") == 1 and table.count("no category") == 2


def test_only_shares_of_the_same_questions_have_an_interval():
    """Of a share among usable boxes, the questions before may be others than those after."""
    before = [replace(r, valid_box=False, subimage_right=None) if r.id.endswith("0") else r for r in records(1)]
    gained = differences(records(3), before)
    assert ("val", ALL, "valid_box_ratio") in gained and ("val", ALL, "subimage_accuracy") not in gained
    assert differences(records(3), []) == {}


def test_the_terminal_says_how_wide_a_table_is(monkeypatch):
    for width in (60, 120):
        monkeypatch.setenv("COLUMNS", str(width))
        assert format_report(summarise(records(3))) == tables(width)[0]


def test_a_notebook_gets_text(monkeypatch):
    """Where rich sees a notebook, a captured table would be displayed there instead of returned."""
    monkeypatch.setattr("rich.console._is_jupyter", lambda: True)
    assert "accuracy" in format_report(summarise(records(3)))


@pytest.mark.parametrize("width", [80, 120])
def test_a_fit_ends_with_intervals_of_what_it_gained(width, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", str(width))
    monkeypatch.setattr("mgpo.callbacks.report_writer.run_folder", lambda trainer: tmp_path)
    writer, module = ReportWriter(), SimpleNamespace()
    trainer: Any = SimpleNamespace(
        sanity_checking=False, is_global_zero=True, state=SimpleNamespace(fn="validate"), default_root_dir="runs"
    )
    for module.step, right in ((0, 1), (160, 3)):
        module.records = records(right)
        module.summary = summarise(module.records)
        writer.on_validation_end(trainer, module)
    assert tables(width)[1] in capsys.readouterr().out
