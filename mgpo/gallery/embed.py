"""JSON that may stand inside a script element, whatever texts it holds."""

import json
import math
from typing import Any

# None of these can leave a JSON string, so none is ever part of its syntax.
_ESCAPES = str.maketrans({char: f"\\u{ord(char):04x}" for char in "<>&\u2028\u2029"})


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
