"""The notebooks run from top to bottom, as a person runs them, in a folder of their own."""

import json

import nbformat
import pytest
from nbclient import NotebookClient

from tests.test_cli import ROOT

NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
LARGEST = 400_000  # bytes of a notebook with its outputs


@pytest.mark.parametrize(
    "path",
    [pytest.param(path, marks=[pytest.mark.slow] if "learn" in path.stem else []) for path in NOTEBOOKS],
    ids=lambda path: path.stem,
)
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning", "ignore::ResourceWarning")
def test_notebook_runs(path, tmp_path, monkeypatch):
    for name, value in {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}.items():
        monkeypatch.setenv(name, value)
    book = nbformat.read(path, as_version=4)
    NotebookClient(book, timeout=240, resources={"metadata": {"path": str(tmp_path)}}).execute()
    shown = [output for cell in book.cells if cell.cell_type == "code" for output in cell.outputs]
    assert any("image/png" in output.get("data", {}) for output in shown)


@pytest.mark.parametrize(
    "path",
    [pytest.param(path, marks=[pytest.mark.slow] if "learn" in path.stem else []) for path in NOTEBOOKS],
    ids=lambda path: path.stem,
)
def test_notebook_is_thin_and_small(path):
    """No logic of its own: no functions, no classes, no cell of more than 17 lines."""
    assert path.stat().st_size < LARGEST
    for cell in json.loads(path.read_text())["cells"]:
        lines = "".join(cell["source"]).splitlines()
        if cell["cell_type"] == "code":
            assert len(lines) <= 17
            assert not any(line.lstrip().startswith(("def ", "class ", "while ")) for line in lines)
