"""MGPO: vision-language models that learn where to look. `mgpo.load(path).ask(image, question)` is the shortest use."""

from typing import Any


def __getattr__(name: str) -> Any:
    """`load` and `fit` on demand: importing a part of the package does not import transformers."""
    if name in ("load", "fit"):
        from mgpo import api

        return getattr(api, name)
    raise AttributeError(f"module 'mgpo' has no attribute {name!r}")
