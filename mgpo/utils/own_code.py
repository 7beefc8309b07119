"""Failures of code that a configuration names, told in one sentence."""

import os
import re
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from inspect import Parameter, isclass, isfunction, signature
from pathlib import Path
from pydoc import ErrorDuringImport, locate
from typing import Any, get_type_hints

from mgpo.errors import UserError

SHOWN = 200  # characters of an error
HERE = f"{Path(__file__).parents[1]}{os.sep}"  # this package, of whose lines nobody needs to know
PACKAGE = re.compile(r"pip install (?:-U )?['`]?(\w[\w.-]*)")
MODULE = re.compile(r"[Nn]o module named '(\w[\w-]*)|`(\w[\w-]*)` is not installed")


@contextmanager
def blaming(what: str) -> Iterator[None]:
    """Inside, whatever is raised becomes a UserError that says what failed, why, and in which line."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        raise UserError(f"{what} fails: {_why(error)}") from error


def unmade(error: BaseException) -> UserError | None:
    """Which class of a configuration could not be made, and why: mostly because its package is not installed.

    None for an error that says nothing of the kind.
    """
    chain = [error]
    while (cause := chain[-1].__cause__) is not None and cause not in chain:
        chain.append(cause)
    named = re.search(r"given class_path '([^']+)'", " ".join(map(str, chain)))
    lacking = next((e for e in chain if isinstance(e, ModuleNotFoundError)), None)
    if lacking is not None:
        found = PACKAGE.findall(str(lacking)) or ["".join(names) for names in MODULE.findall(str(lacking))]
        if found:
            package = min(found, key=len)  # tensorboard before tensorboardX, either of which will do
            what = named[1] if named else "this configuration"
            return UserError(f"{what} needs {package}, which is not installed: pip install {package}")
    return UserError(f"{named[1]} can't be made: {_why(chain[-1])}") if named else None


def made_whole(class_type: Any, *args: Any, **arguments: Any) -> Any:
    """`class_type(*args, **arguments)`, of arguments from a configuration.

    Raises:
        UserError: Where one is lacking; the parser takes None for what has neither a default nor an annotation.
    """
    lacking = [name for name, value in arguments.items() if value is None and _plainly_needed(class_type, name)]
    if lacking:
        name = f"{class_type.__module__}.{class_type.__qualname__}"
        raise UserError(f"{name} needs {', '.join(lacking)}, which has no default; give it a value")
    return class_type(*args, **arguments)


def _plainly_needed(kind: Any, name: str) -> bool:
    """Whether the parameter of this name, of the first class that has one, is neither annotated nor has a default."""
    for made in [base.__init__ for base in getattr(kind, "__origin__", kind).__mro__ if "__init__" in vars(base)]:
        with suppress(ValueError):  # of a class that is not written in Python
            if (found := signature(made).parameters.get(name)) is not None:
                return found.default is found.annotation is Parameter.empty
    return False


def is_function(path: str) -> bool:
    """Whether a dotted path names a function that is called as it is, rather than one that makes what is called."""
    try:
        found = locate(path)
        made = get_type_hints(found).get("return") if isfunction(found) else None
    except (ErrorDuringImport, NameError, TypeError):  # which the parser tells
        return False
    return isfunction(found) and not (isclass(made) and any("__call__" in vars(base) for base in made.__mro__))


def _why(error: BaseException) -> str:
    """An error and its line, in one."""
    said = " ".join(f"{type(error).__name__}: {error}".split())[:SHOWN].removesuffix(": ")
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename != __file__]
    called = [frame for frame in frames if frame.filename != frames[0].filename]  # where it is asked
    place = called + [frame for frame in called if not frame.filename.startswith(HERE)]
    return said + (f" ({place[-1].filename}, line {place[-1].lineno})" if place else "")
