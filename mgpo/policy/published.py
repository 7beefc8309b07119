"""The files of a published checkpoint, from a folder or from the hub, with errors that name what is missing."""

import importlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors import SafetensorError
from transformers import AutoConfig, AutoTokenizer, PreTrainedTokenizerBase
from transformers.utils.hub import cached_file

from mgpo.errors import UserError
from mgpo.policy.base import Policy
from mgpo.policy.registry import FAMILIES

T = TypeVar("T")
VOCABULARIES = ("tokenizer.json", "tokenizer.model", "vocab.json")


def read(path: str, what: str, load: Callable[[str], T]) -> T:
    """Call `load` on a path. Raises UserError, naming what could not be read, where it fails."""
    try:
        return load(path)
    except torch.OutOfMemoryError:  # the checkpoint may be sound
        raise
    except (OSError, ValueError, KeyError, TypeError, RuntimeError, SafetensorError) as error:
        if Path(path).is_dir():
            raise UserError(f"the folder {path} holds no readable {what}: {_first_line(error)}") from None
        raise UserError(
            f"{path} is neither a folder nor a model of the hub that can be fetched from here; "
            f"download it first and give its folder ({what}: {_first_line(error)})"
        ) from None


def read_config(path: str) -> Any:
    """The configuration of a checkpoint."""
    return read(path, "config.json", AutoConfig.from_pretrained)


def read_tokenizer(path: str) -> PreTrainedTokenizerBase:
    """The tokenizer with its chat template, which older checkpoints keep in a file of its own."""
    if Path(path).is_dir() and not any((Path(path) / name).exists() for name in VOCABULARIES):
        raise UserError(f"the folder {path} holds no readable tokenizer.json")  # some classes would start an empty one
    tokenizer = read(path, "tokenizer", AutoTokenizer.from_pretrained)
    if tokenizer.chat_template is None:
        missing_ok = {f"_raise_exceptions_for_{kind}": False for kind in ("missing_entries", "connection_errors")}
        if file := cached_file(path, "chat_template.json", **missing_ok):
            tokenizer.chat_template = json.loads(Path(file).read_text())["chat_template"]
    return tokenizer


def family_of(path: str) -> Callable[..., Policy]:
    """The class that takes a checkpoint. Raises UserError where there is none."""
    model_type = read_config(path).model_type
    if model_type not in FAMILIES:
        raise UserError(f"{path} holds a {model_type} model; the families here are {', '.join(FAMILIES)}")
    module, name = FAMILIES[model_type].rsplit(".", 1)
    return getattr(importlib.import_module(module), name)


def _first_line(error: Exception) -> str:
    return next(iter(str(error).strip().splitlines()), type(error).__name__)
