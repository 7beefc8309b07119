"""The way back from objects to the configuration that makes them."""

import inspect
import json
from dataclasses import asdict, is_dataclass
from inspect import Parameter
from typing import Any

import jsonargparse

from mgpo.errors import UserError
from mgpo.utils.configurations import made_from


def settings_of(made: Any) -> dict[str, Any]:
    """`class_path` and `init_args` of an object that keeps its arguments under their names, as dialogues do.

    Arguments that it does not keep are left out; so is None where that is the default.
    """
    arguments = {
        name: _plain(value)
        for name, value in _kept(made).items()
        if value is not None or _default(type(made), name) is not None
    }
    return {"class_path": path_of(type(made)), "init_args": arguments}


def check_settings(what: str, made: Any, kind: type) -> None:
    """Raises UserError where the same object of a kind, or function, can't be made elsewhere of its `settings_of`."""
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
            check_settings(what, value, object)
    try:
        saved = json.loads(json.dumps(settings_of(made)))
        if kind is not object:
            made_from({"it": saved}, it=kind)
    except UserError as error:
        raise UserError(f"{what} can't be saved: {str(error).removeprefix('it: ')}") from None
    except (TypeError, ValueError) as error:
        raise UserError(f"{what} can't be saved: an argument of {own.__name__} is no JSON ({error})") from None


def _kept(made: Any) -> dict[str, Any]:
    return {name: getattr(made, name) for name in _parameters(type(made)) if hasattr(made, name)}


def path_of(made: Any) -> str:
    """The class path of a class or a function."""
    return f"{made.__module__}.{made.__qualname__}"


def _parameters(kind: type) -> list[str]:
    """What a configuration can give to a class by name, also what it hands on as **kwargs to one of its bases."""
    parser = jsonargparse.ArgumentParser(exit_on_error=False)
    added = parser.add_class_arguments(kind, "it", fail_untyped=False, instantiate=False)
    return list(dict.fromkeys(key.split(".")[1] for key in added))


def _default(kind: type, name: str) -> Any:
    """That of the first class which has a parameter of this name."""
    for base in kind.__mro__[:-1]:
        found = inspect.signature(vars(base)["__init__"]).parameters.get(name) if "__init__" in vars(base) else None
        if found is not None:
            return found.default
    return Parameter.empty


def _plain(value: Any) -> Any:
    if inspect.isfunction(value):
        return path_of(value)
    if callable(value) and not isinstance(value, type):  # an object of a class of its own, such as a cut
        return settings_of(value)
    return asdict(value) if is_dataclass(value) and not isinstance(value, type) else value
