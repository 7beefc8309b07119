"""The way back from objects to the configuration that makes them."""

import inspect
from dataclasses import asdict, is_dataclass
from typing import Any


def settings_of(made: Any) -> dict[str, Any]:
    """`class_path` and `init_args` of an object that keeps its arguments under their names, as dialogues do.

    Arguments that it does not keep are left out, and so are at their defaults when it is made again.
    """
    names = list(inspect.signature(type(made)).parameters)
    arguments = {name: _plain(getattr(made, name)) for name in names if hasattr(made, name)}
    return {"class_path": f"{type(made).__module__}.{type(made).__qualname__}", "init_args": arguments}


def _plain(value: Any) -> Any:
    return asdict(value) if is_dataclass(value) and not isinstance(value, type) else value
