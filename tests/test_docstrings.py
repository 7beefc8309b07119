"""What a reader of the code meets first: nearly everything public has a docstring, and it begins as a sentence does."""

import ast
import importlib
from collections.abc import Iterator
from pathlib import Path

import pytest

import mgpo

PACKAGE = Path(mgpo.__file__).parent
LEAST = 0.95  # of public functions, methods and classes; a name that says it all needs no more
DEFINITIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)


def public(body: list[ast.stmt], name: str) -> Iterator[tuple[str, ast.AST]]:
    """Names and definitions in a module or class; what is private is private with all that is in it."""
    for node in body:
        if isinstance(node, DEFINITIONS) and not node.name.startswith("_"):
            yield f"{name}:{node.lineno} {node.name}", node
            if isinstance(node, ast.ClassDef):
                yield from public(node.body, name)


MODULES = {
    path.relative_to(PACKAGE.parent).as_posix(): ast.parse(path.read_text()) for path in sorted(PACKAGE.rglob("*.py"))
}
DEFINED = [(place, node) for name, module in MODULES.items() for place, node in public(module.body, name)]


def listed(places: list[str]) -> str:
    return "\n".join(["", *places])


def test_nearly_everything_public_has_a_docstring():
    missing = [place for place, node in DEFINED if not ast.get_docstring(node)]
    share = 1 - len(missing) / len(DEFINED)
    assert share >= LEAST, f"{share:.3f} of {len(DEFINED)} have one; these have none:{listed(missing)}"


def test_every_module_with_code_says_what_it_is_for():
    missing = [name for name, module in MODULES.items() if module.body and not ast.get_docstring(module)]
    assert not missing, listed(missing)


def test_docstrings_begin_with_a_sentence():
    """A capital letter or a name in backquotes first, and a full stop or a colon at the end of the first paragraph."""
    wrong = []
    for place, node in [*MODULES.items(), *DEFINED]:
        text = ast.get_docstring(node)
        if text is None:
            continue
        first = text.split("\n\n")[0]
        if not (first[:1].isupper() or first[:1] == "`") or not first.endswith((".", ":")):
            wrong.append(f"{place}: {first}")
    assert not wrong, listed(wrong)


@pytest.mark.parametrize(
    "name", ["data.Source", "dialogues.Dialogue", "policy.Policy", "rewards.Reward", "rollout.Sampler"]
)
def test_what_people_write_themselves_has_an_example(name):
    package, _, public = name.partition(".")
    assert "Example:" in getattr(importlib.import_module(f"mgpo.{package}"), public).__doc__
