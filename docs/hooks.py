"""What the site needs besides its pages: the folder results/, which lies beside docs/, and one home for every name."""

from pathlib import Path
from typing import Any

import griffe
from mkdocs.structure.files import File, Files

RESULTS = Path(__file__).parents[1] / "results"


def on_files(files: Files, config: Any) -> None:
    """Adds results/ under a name that no page has."""
    for path in sorted(path for path in RESULTS.rglob("*") if path.is_file()):
        files.append(File.generated(config, f"study/{path.relative_to(RESULTS)}", abs_src_path=str(path)))


def on_page_markdown(markdown: str, **_: Any) -> str:
    return markdown.replace("](../results/", "](study/")


class OneHome(griffe.Extension):
    """Names are described where they are defined, and not again in the package that gives them."""

    def on_package(self, *, pkg: griffe.Module, **_: Any) -> None:
        packages = [pkg]
        while packages:
            package = packages.pop()
            package.exports = None
            packages += [part for part in package.modules.values() if not part.is_alias]
