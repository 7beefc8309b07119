"""What the packages give by short names: each is there, and type checkers see the same as Python does."""

import ast
import importlib
import pkgutil
import subprocess
import sys
from pathlib import Path

import pytest

import mgpo

PACKAGES = ["mgpo", *(f"mgpo.{part.name}" for part in pkgutil.iter_modules(mgpo.__path__) if part.ispkg)]


@pytest.mark.parametrize("name", PACKAGES)
def test_every_public_name_is_there(name):
    package = importlib.import_module(name)
    for public in getattr(package, "__all__", ()):
        assert getattr(package, public) is not None
    with pytest.raises(AttributeError):
        package.no_such_name  # noqa: B018


@pytest.mark.parametrize("name", PACKAGES)
def test_type_checkers_see_the_same_names_in_the_same_places(name):
    package = importlib.import_module(name)
    seen = {
        alias.name: node.module
        for branch in ast.parse(Path(package.__file__).read_text()).body
        if isinstance(branch, ast.If)
        for node in branch.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    if not seen:
        return
    assert set(seen) == set(package.__all__) - {"__version__"} == set(dir(package))
    for public, home in seen.items():
        assert getattr(package, public) is getattr(importlib.import_module(home), public)


def test_the_package_itself_brings_nothing_along():
    """Checked in a process of its own: this one has everything loaded."""
    code = "import sys, mgpo; sys.exit(bool({'torch', 'lightning', 'transformers'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
