"""One HTML file that needs nothing from outside, in which only a script of ours runs; and JSON that stands in it."""

import base64
import hashlib
import json
import math
from html import escape
from importlib.resources import files
from string import Template
from typing import Any

# None of these can leave a JSON string, so none is ever part of its syntax.
_ESCAPES = str.maketrans({char: f"\\u{ord(char):04x}" for char in "<>&\u2028\u2029"})


def html_page(title: str, style: str, body: str, script: str = "") -> str:
    """A whole page.

    Args:
        title: As text.
        style: Put behind the style that all pages share.
        body: Markup. A script in it runs where it is `script`, letter for letter: by its hash, so that nothing that a
            model or a data set wrote can run, even if it were to reach the markup.
        script: The one script that may run.
    """
    style = asset("assets/common.css") + style
    policy = f"default-src 'none'; img-src data:; style-src {_hash(style)}; "
    policy += f"script-src {_hash(script)}; " if script else ""
    policy += "base-uri 'none'; form-action 'none'"
    slots = {"title": escape(title), "style": style, "policy": policy, "body": body}
    return Template(asset("assets/frame.html")).substitute(slots)


def asset(name: str, package: str = "mgpo.gallery") -> str:
    """A text file that lies in a package."""
    return files(package).joinpath(name).read_text("utf-8")


def to_json(value: Any) -> str:
    """Compact JSON without the signs that could end the element; lone surrogates become question marks."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    return text.encode("utf-8", "replace").decode().translate(_ESCAPES)


def size_of(value: Any) -> int:
    """The bytes that a value takes up on the page, as JSON."""
    return len(to_json(value).encode())


def number(value: float | None, digits: int) -> float | None:
    """A number rounded to so many digits; None where JSON has no word for it."""
    return None if value is None or not math.isfinite(value) else round(float(value), digits)


def shorten(text: str, limit: int) -> str:
    """A text of at most `limit` characters: of a longer one both ends, since a reply's answer stands at its end."""
    if len(text) <= limit:
        return text
    tail = (limit - 1) // 2
    return text[: limit - 1 - tail] + "…" + text[len(text) - tail :]


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
