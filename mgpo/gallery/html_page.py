"""One HTML file that needs nothing from outside, and in which nothing runs but a script of ours."""

import base64
import hashlib
from html import escape
from importlib.resources import files
from string import Template


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


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
