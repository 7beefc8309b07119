"""The way back from objects to the configuration that makes them."""

import inspect
import json
from collections.abc import Iterator
from dataclasses import asdict, is_dataclass
from inspect import Parameter
from typing import Any

from mgpo.errors import UserError


def settings_of(made: Any) -> dict[str, Any]:
    """`class_path` and `init_args` of an object that keeps its arguments under their names, as dialogues do.

    Arguments that it does not keep are left out; so is None where that is the default.
    """
    parameters, kept = _parameters(type(made)), _kept(made)
    arguments = {
        name: _plain(value) for name, value in kept.items() if value is not None or parameters[name].default is not None
    }
    return {"class_path": path_of(type(made)), "init_args": arguments}


def check_settings(what: str, made: Any) -> None:
    """Raises UserError where the same object, or function, can't be made elsewhere of its `settings_of`."""
    own = made if inspect.isfunction(made) else type(made)
    if own.__module__ == "__main__" or "<" in own.__qualname__:
        raise UserError(f"{what} can't be saved: {path_of(own)} is in no module, from which others could import it")
    if inspect.isfunction(made):
        return
    kept = _kept(made)
    if lost := [name for name in _parameters(type(made)) if name not in kept]:
        raise UserError(
            f"{what} can't be saved: {own.__name__} does not keep its argument {lost[0]}; set self.{lost[0]} in its "
            "__init__"
        )
    for value in kept.values():
        if callable(value) and not isinstance(value, type):
            check_settings(what, value)
    try:
        json.dumps(settings_of(made))
    except (TypeError, ValueError) as error:
        raise UserError(f"{what} can't be saved: an argument of {own.__name__} is no JSON ({error})") from None


def _kept(made: Any) -> dict[str, Any]:
    return {name: getattr(made, name) for name in _parameters(type(made)) if hasattr(made, name)}


def path_of(made: Any) -> str:
    """The class path of a class or a function."""
    return f"{made.__module__}.{made.__qualname__}"


def _parameters(kind: type) -> dict[str, Parameter]:
    """What a class takes by name, also what it hands on to another one of its bases as **kwargs."""
    found: dict[str, Parameter] = {}
    for parameters in _initialisers(kind):
        others = (Parameter.VAR_KEYWORD, Parameter.VAR_POSITIONAL)
        found = {name: p for name, p in parameters.items() if p.kind not in others} | found
        if not any(p.kind is Parameter.VAR_KEYWORD for p in parameters.values()):
            break
    return found


def _initialisers(kind: type) -> Iterator[dict[str, Parameter]]:
    for base in kind.__mro__[:-1]:
        if "__init__" in vars(base):
            _, *parameters = inspect.signature(vars(base)["__init__"]).parameters.items()
            yield dict(parameters)


def _plain(value: Any) -> Any:
    if inspect.isfunction(value):
        return path_of(value)
    if callable(value) and not isinstance(value, type):  # an object of a class of its own, such as a cut
        return settings_of(value)
    return asdict(value) if is_dataclass(value) and not isinstance(value, type) else value
