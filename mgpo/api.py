"""A few lines of Python: train, load what was trained, ask it, see where it looked, save it for others."""

import math
from collections.abc import Mapping
from pathlib import Path
from types import FunctionType
from typing import Any

import yaml

from mgpo.errors import UserError
from mgpo.inference.base import Answer
from mgpo.inference.loading import load
from mgpo.inference.local import Model
from mgpo.inference.served import ServedModel
from mgpo.utils.configurations import load_file, shipped_config

__all__ = ["Answer", "Model", "ServedModel", "fit", "load"]


def fit(config: str | Path = "mgpo", settings: Mapping[str, Any] | None = None) -> Path:
    """Train as `python -m mgpo fit` does and return the run's folder.

    `config` is a file, or the name of one that comes with the package; `settings` are keys of the command line, and
    their values texts as there, what YAML can hold, or classes and functions of modules. Raises UserError for others.
    """
    from mgpo.callbacks.folder import run_folder
    from mgpo.commands.execute import run  # Lightning comes along with these; asking does without
    from mgpo.commands.keys import check_arguments, check_configuration
    from mgpo.commands.quiet import hush

    hush()
    path = Path(config) if Path(config).suffix else shipped_config(str(config))
    arguments = [f"--{key}={_written(key, value)}" for key, value in (settings or {}).items()]
    check_arguments("fit", arguments, check_configuration("fit", str(path), load_file(str(path))))
    return run_folder(run(["fit", "--config", str(path), *arguments]).trainer)


def _written(key: str, value: Any) -> str:
    """A setting as the command line has it."""
    if isinstance(value, str | Path | type | FunctionType):
        return _plain(key, value)
    try:
        return yaml.safe_dump(_plain(key, value), default_flow_style=True, width=math.inf).removesuffix("...\n").strip()
    except yaml.YAMLError:
        raise UserError(
            f"{key}: a {type(value).__name__} can't be written into a configuration; name its class, and its arguments "
            'under init_args: {"class_path": …, "init_args": {…}}'
        ) from None


def _plain(key: str, value: Any) -> Any:
    """A value as YAML can hold it: classes and functions by their paths, numbers of numpy and torch as Python's."""
    if isinstance(value, type | FunctionType):
        path = f"{value.__module__}.{value.__qualname__}"
        if value.__module__ == "__main__" or "<" in path:
            raise UserError(
                f"{key}: {path} is in no module, from which other processes could import it; put it into one"
            )
        return path
    if isinstance(value, Mapping):
        return {name: _plain(key, each) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(key, each) for each in value]
    if isinstance(value, Path):
        return str(value)
    return value.item() if callable(getattr(value, "item", None)) else value
