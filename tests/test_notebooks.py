"""The notebooks run from top to bottom, as a person runs them, in a folder of their own."""

import json
import re
import tempfile
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

from mgpo.evaluation.report import ELSEWHERE, MISREAD, NO_BOX, NO_LOOK
from tests.test_cli import ROOT

NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
LARGEST = 600_000  # bytes of a notebook with its outputs
FEWER = {"03_your_own_data": "pictures, epochs = 5, 1"}  # what stands in place of the cell that is tagged "parameters"
of_each = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)


def cells_of(path, kind="code"):
    return [cell for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == kind]


def run(path, folder, monkeypatch, parameters=None):
    """What the notebook shows."""
    for name, value in {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}.items():
        monkeypatch.setenv(name, value)
    book = nbformat.read(path, as_version=4)
    if parameters:
        (cell,) = [cell for cell in book.cells if "parameters" in cell.metadata.get("tags", ())]
        cell.source = parameters
    NotebookClient(book, timeout=240, resources={"metadata": {"path": str(folder)}}).execute()
    return [output for cell in book.cells if cell.cell_type == "code" for output in cell.outputs]


def pictures(outputs):
    return sum("image/png" in output.get("data", {}) for output in outputs)


@pytest.mark.parametrize(
    "path",
    [pytest.param(path, marks=[] if path.stem == "01_first_look" else [pytest.mark.slow]) for path in NOTEBOOKS],
    ids=lambda path: path.stem,
)
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning", "ignore::ResourceWarning")
def test_notebook_runs(path, tmp_path, monkeypatch):
    assert pictures(run(path, tmp_path, monkeypatch, FEWER.get(path.stem)))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning", "ignore::ResourceWarning")
def test_own_data_run_in_full_show_as_many_pictures_as_are_stored(tmp_path, monkeypatch):
    (path,) = [path for path in NOTEBOOKS if path.stem in FEWER]
    stored = pictures([output for cell in cells_of(path) for output in cell.outputs])
    assert pictures(run(path, tmp_path, monkeypatch)) >= stored - 1  # one kind of failure is rare


@of_each
def test_notebook_is_thin_and_small(path):
    """No logic of its own: no functions, no classes, no cell of more than 17 lines."""
    assert path.stat().st_size < LARGEST
    for cell in cells_of(path):
        lines = cell.source.splitlines()
        assert len(lines) <= 17
        assert not any(line.lstrip().startswith(("def ", "class ", "while ")) for line in lines)


@of_each
def test_what_is_stored_is_whole_and_of_no_machine(path):
    cells = cells_of(path)
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    outputs = [output for cell in cells for output in cell.outputs]
    assert not [output for output in outputs if output.output_type == "error" or output.get("name") == "stderr"]
    text = json.dumps([{**output, "data": {**output.get("data", {}), "image/png": ""}} for output in outputs])
    assert not [
        place for place in (tempfile.gettempdir(), "/tmp", "/home", str(ROOT), str(Path.home())) if place in text
    ]


@of_each
def test_charts_come_from_the_package(path):
    """It draws them with words at their axes."""
    source = "\n".join(cell.source for cell in cells_of(path))
    assert not re.search(r"matplotlib|\bplt\b|\.plot\(|set_[xy]label", source)


def test_own_data_show_every_kind_of_failure():
    (path,) = [path for path in NOTEBOOKS if path.stem in FEWER]
    outputs = [output for cell in cells_of(path) for output in cell.outputs]
    for kind in (NO_BOX, ELSEWHERE, MISREAD, NO_LOOK):
        (place,) = [i for i, o in enumerate(outputs) if kind.capitalize() in o.get("data", {}).get("text/markdown", "")]
        assert len(outputs[place].data["text/markdown"]) > len(kind) + 100  # what to do about it
        assert "(right: " in outputs[place + 1].text and "image/png" in outputs[place + 2].data
