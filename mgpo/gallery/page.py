"""Writing the gallery as one HTML file that needs nothing from outside, and reading it back."""

import html
import re
from pathlib import Path
from string import Template
from typing import Any

from mgpo.errors import UserError
from mgpo.gallery.data import Gallery
from mgpo.gallery.html_page import asset, html_page, to_json
from mgpo.utils.atomic_files import parse_json, replaced

SCRIPTS = ("draw.js", "grid.js", "question.js", "page.js")  # one module, in this order
_DATA = re.compile(r'<script type="application/json" id="gallery">([^<]*)</script>')


def write_page(path: Path, gallery: Gallery, title: str) -> None:
    """Write the page; whoever opens it meanwhile sees the one before, whole."""
    style, script = asset("assets/page.css"), "".join(asset(f"assets/{name}") for name in SCRIPTS)

    def page(data: str) -> bytes:
        body = Template(asset("assets/page.html")).substitute(title=html.escape(title), script=script, data=data)
        return html_page(title, style, body, script).encode("utf-8", "replace")

    data = to_json(gallery.document(title, gallery.budget - len(page(""))))
    with replaced(path) as unfinished:
        unfinished.write_bytes(page(data))


def read_page(path: Path) -> dict[str, Any]:
    """What `write_page` embedded. Raises UserError for a file that is not such a page."""
    found = _DATA.search(path.read_text("utf-8", "replace")) if path.is_file() else None
    if found is None:
        raise UserError(f"{path}: this is not a gallery page; a run writes one at each evaluation")
    try:
        return parse_json(found[1])
    except ValueError:
        raise UserError(f"{path}: what this gallery page holds can't be read; take a whole one") from None
