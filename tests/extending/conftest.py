"""An outsider's file in a folder of its own, and the command line as its only way in."""

import sys
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mgpo.commands.execute import run
from tests.test_cli import ROOT, SMALL


@pytest.fixture
def write_file(tmp_path, monkeypatch) -> Callable[[str, str], Path]:
    """Writes a module into the folder from which commands are started; it is forgotten when the test ends."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    written: list[str] = []

    def write(name: str, text: str) -> Path:
        written.append(name)
        (path := tmp_path / f"{name}.py").write_text(textwrap.dedent(text))
        return path

    yield write
    for name in written:
        sys.modules.pop(name, None)


@pytest.fixture
def configured(tmp_path) -> Callable[..., Any]:
    """What `mgpo fit` would make of some arguments: its model, data and trainer, before anything is run."""

    def configure(*arguments: str) -> Any:
        quiet = ["--trainer.logger=false", "--trainer.callbacks=null", "--trainer.enable_checkpointing=false"]
        quiet += ["--trainer.enable_progress_bar=false", "--trainer.accelerator=cpu"]
        return run(["--config", str(ROOT / "configs" / "mgpo.yaml"), *SMALL, *quiet, *arguments], run=False)

    return configure
