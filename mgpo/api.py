"""A few lines of Python: train, load what was trained, ask it, see where it looked, save it for others."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mgpo.inference.base import Answer
from mgpo.inference.loading import load
from mgpo.inference.local import Model
from mgpo.inference.served import ServedModel
from mgpo.utils.configurations import shipped_config

__all__ = ["Answer", "Model", "ServedModel", "fit", "load"]


def fit(config: str | Path = "mgpo", settings: Mapping[str, Any] | None = None) -> Path:
    """Train as `python -m mgpo fit` does and return the run's folder.

    `config` is a file, or the name of one that comes with the package; `settings` are keys of the command line.
    """
    from mgpo.callbacks.folder import run_folder
    from mgpo.commands.trainer_cli import hush, run  # Lightning comes along with these; asking does without

    hush()
    path = Path(config) if Path(config).suffix else shipped_config(str(config))
    arguments = [f"--{key}={value}" for key, value in (settings or {}).items()]
    return run_folder(run(["fit", "--config", str(path), *arguments]).trainer)
