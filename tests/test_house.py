"""The house stays one in which things are found: few modules in its root, names that say one thing, short files."""

from collections import Counter
from pathlib import Path

import mgpo

ROOT = Path(mgpo.__file__).parent
FILES = sorted(ROOT.rglob("*.py"))
LONGEST = 300  # lines; most have far fewer


def test_few_modules_lie_in_the_root():
    assert {path.stem for path in ROOT.glob("*.py")} == {"__init__", "__main__", "api", "cli", "errors", "types"}


def test_few_file_names_are_used_twice():
    counted = Counter(path.name for path in FILES)
    assert len([name for name, times in counted.items() if times > 1]) <= 6


def test_files_are_short():
    assert {path.name for path in FILES if len(path.read_text().splitlines()) > LONGEST} == set()
