"""Interfaces: what has their methods implements them, whatever its annotations, and without deriving from them."""

from abc import ABCMeta
from importlib import import_module
from inspect import isclass, isfunction, ismethod, signature, unwrap
from typing import TYPE_CHECKING, Any, cast, get_type_hints

from mgpo.errors import UserError

if TYPE_CHECKING:
    from typing import Protocol as Interface
else:
    # The command line compares protocols by annotations, which classes of a user's own need not have.
    class ByMethods(ABCMeta):
        """Makes classes that know their kind by its methods' names; one of `__call__` alone has functions too."""

        def __instancecheck__(cls, thing: object) -> bool:
            called = isfunction(thing) and methods(cls) == ["__call__"] and not cls._is_made_by(thing)
            return super().__instancecheck__(thing) or called

        def _is_made_by(cls, function: Any) -> bool:
            """Whether a function says that it gives such a thing, and so is none itself."""
            try:
                given = get_type_hints(function).get("return")
            except (NameError, TypeError):  # of names that are not there
                return False
            return isclass(given) and issubclass(given, cls)

        def __subclasscheck__(cls, other: type) -> bool:
            lacks = [name for name in methods(cls) if not _is_method(getattr(other, name, None))]
            return super().__subclasscheck__(other) or (Interface in cls.__bases__ and not lacks)

    def _is_method(found: object) -> bool:
        return isfunction(unwrap(found)) or ismethod(found)  # the latter of a class

    class Interface(metaclass=ByMethods):
        """What a configuration may name a class for. Its methods are abstract ones."""


def methods(interface: type) -> list[str]:
    """The names of what implements an interface, in order."""
    return sorted(interface.__abstractmethods__)  # type: ignore[attr-defined]


def implementing(interface: type, thing: Any, key: str) -> Any:
    """The thing itself, if it has all methods of the interface and they can be called as the interface's are.

    Raises:
        UserError: Where one is missing or takes something else; the message begins with the key.
    """
    what = getattr(thing, "__name__", type(thing).__name__)
    if isclass(thing):
        raise UserError(f"{key}: {what} is a class; give an object of it, such as {what}()")
    for name in methods(interface):
        asked = list(signature(getattr(interface, name)).parameters)[1:]  # without self
        takes = f"takes {' and '.join(filter(None, [', '.join(asked[:-1]), *asked[-1:]])) or 'nothing'}"
        method = thing if isfunction(thing) and name == "__call__" else getattr(thing, name, None)
        if not callable(method):
            raise UserError(f"{key}: {what} is no {interface.__name__}: it has no {name}, which {takes}")
        try:
            known = signature(method)
        except (TypeError, ValueError):  # of what is not written in Python
            continue
        try:
            known.bind(*asked)
        except TypeError:
            whose = what if name == "__call__" else f"{what}.{name}"
            raise UserError(
                f"{key}: {whose} is defined with {known}, but as a {interface.__name__} it {takes}"
            ) from None
    return thing


def not_implementing(path: str, name: str) -> str | None:
    """Why the class or function at a dotted path is no implementation of the interface of that name.

    None where there is no such interface, or no such class.
    """
    interface = next((each for each in cast(type, Interface).__subclasses__() if each.__name__ == name), None)
    found = found_at(path)
    if interface is None or found is None:
        return None
    left = getattr(found, "__abstractmethods__", ())  # of what derives from it
    lacks = [each for each in methods(interface) if each in (*left, "__call__") or not hasattr(found, each)]
    return f"{path} is no {name}" + (f": it has no {lacks[0]}" if isclass(found) and lacks else "")


def unfinished(path: str) -> str:
    """Why nothing can be made of the abstract class at a dotted path."""
    left = sorted(getattr(found_at(path), "__abstractmethods__", ()))
    lacks = f": it does not define {', '.join(left)}; define that, or name a class that does"
    return f"{path} is abstract" + (lacks if left else "")


def found_at(path: str) -> Any:
    """What is at a dotted path; None where nothing is, or nothing can be imported."""
    module, _, last = path.rpartition(".")
    try:
        return getattr(import_module(module), last)
    except (ImportError, AttributeError, ValueError):
        return None
