"""Writing the gallery as one HTML file that needs nothing from outside, and reading it back."""

import base64
import hashlib
import html
import re
from importlib.resources import files
from pathlib import Path
from string import Template
from typing import Any

from mgpo.errors import UserError
from mgpo.gallery.data import Gallery
from mgpo.gallery.embed import to_json
from mgpo.utils.atomic_files import parse_json, replaced

SCRIPTS = ("draw.js", "grid.js", "question.js", "page.js")  # one module, in this order
_DATA = re.compile(r'<script type="application/json" id="gallery">([^<]*)</script>')


def write_page(path: Path, gallery: Gallery, title: str) -> None:
    """Write the page; whoever opens it meanwhile sees the one before, whole."""
    page, style, script = _asset("page.html"), _asset("page.css"), "".join(map(_asset, SCRIPTS))
    slots = {
        "title": html.escape(title),
        "style": style,
        "script": script,
        # By hash: nothing that a model or a data set wrote can run, even if it were to reach the markup.
        "policy": f"default-src 'none'; img-src data:; style-src {_hash(style)}; script-src {_hash(script)}; "
        "base-uri 'none'; form-action 'none'",
    }
    skeleton = Template(page).substitute(slots, data="").encode("utf-8", "replace")
    data = to_json(gallery.document(title, gallery.budget - len(skeleton)))
    with replaced(path) as unfinished:
        unfinished.write_bytes(Template(page).substitute(slots, data=data).encode("utf-8", "replace"))


def read_page(path: Path) -> dict[str, Any]:
    """What `write_page` embedded. Raises UserError for a file that is not such a page."""
    found = _DATA.search(path.read_text("utf-8", "replace")) if path.is_file() else None
    if found is None:
        raise UserError(f"{path}: this is not a gallery page; a run writes one at each evaluation")
    try:
        return parse_json(found[1])
    except ValueError:
        raise UserError(f"{path}: what this gallery page holds can't be read; take a whole one") from None


def _asset(name: str) -> str:
    return (files("mgpo.gallery") / "assets" / name).read_text("utf-8")


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
