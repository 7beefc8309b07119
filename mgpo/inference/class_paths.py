"""The way back from objects to the configuration that makes them."""

import inspect
from dataclasses import asdict, is_dataclass
from typing import Any


def settings_of(made: Any) -> dict[str, Any]:
    """`class_path` and `init_args` of an object that keeps its arguments under their names, as dialogues do.

    Arguments that it does not keep are left out, and so are at their defaults when it is made again; so is None where
    that is the default.
    """
    parameters = inspect.signature(type(made)).parameters
    kept = {name: getattr(made, name) for name in parameters if hasattr(made, name)}
    arguments = {
        name: _plain(value) for name, value in kept.items() if value is not None or parameters[name].default is not None
    }
    return {"class_path": path_of(type(made)), "init_args": arguments}


def _plain(value: Any) -> Any:
    if inspect.isfunction(value):
        return path_of(value)
    if callable(value) and not isinstance(value, type):  # an object of a class of its own, such as a cut
        return settings_of(value)
    return asdict(value) if is_dataclass(value) and not isinstance(value, type) else value


def path_of(made: Any) -> str:
    """The class path of a class or a function."""
    return f"{made.__module__}.{made.__qualname__}"
