"""Which class takes which checkpoint, by the `model_type` in its config.json: every family's own file says so."""

import importlib
import pkgutil
from functools import cache
from typing import Any

from mgpo.policy import families


@cache
def shipped_families() -> dict[str, type[Any]]:
    """Their classes by `model_type`. The files of mgpo.policy.families are looked through when this is first asked."""
    found: dict[str, type[Any]] = {}
    for module in pkgutil.iter_modules(families.__path__, f"{families.__name__}."):
        for kind in vars(importlib.import_module(module.name)).values():
            if isinstance(kind, type) and kind.__module__ == module.name:
                found |= dict.fromkeys(vars(kind).get("model_types", ()), kind)
    return found
