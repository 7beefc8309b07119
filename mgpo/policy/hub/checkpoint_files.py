"""The files of a published checkpoint, from a folder or from the hub, with errors that name what is missing."""

import importlib
import json
import math
import pkgutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

import torch
from huggingface_hub import constants
from huggingface_hub.utils import get_session
from transformers import AutoConfig, AutoTokenizer, PreTrainedTokenizerBase
from transformers.image_processing_backends import PilBackend
from transformers.utils.hub import cached_file

from mgpo.errors import UserError, first_line
from mgpo.policy import families
from mgpo.policy.base import Policy
from mgpo.policy.hub.refusals import refusal

T = TypeVar("T")
VOCABULARIES = ("tokenizer.json", "tokenizer.model", "vocab.json")
ADAPTERS = "adapter_config.json"
MODELS = ("config.json", ADAPTERS)  # one of which a folder has that holds a model
PREPROCESSOR = "preprocessor_config.json"
LONGEST = 300  # characters of a library's complaint that are passed on
# Of the image processor, and of the vision tower that takes what it makes.
SHARED = (
    ("patch_size", "patch_size"),
    ("merge_size", "spatial_merge_size"),
    ("temporal_patch_size", "temporal_patch_size"),
)


def read(path: str, what: str, load: Callable[[str], T]) -> T:
    """Call `load` on a path. Raises UserError, naming what could not be read, where it fails."""
    check_place(path)
    if (Path(path) / "config.yaml").is_file() and not any((Path(path) / kind).is_file() for kind in MODELS):
        raise UserError(
            f"{path} is the folder of a run: model.policy.start takes a checkpoint of it, and mgpo export makes a "
            "model of it"
        )
    try:
        with unreached_at_once(path):
            return load(path)
    except (UserError, MemoryError, torch.OutOfMemoryError):  # the checkpoint may be sound
        raise
    except Exception as error:  # libraries raise what they like on files of strangers
        if Path(path).is_dir():
            raise UserError(f"the folder {path} holds no readable {what}: {first_line(error, LONGEST)}") from None
        raise UserError(
            f"{path} is neither a folder nor a model of the hub that can be fetched from here; "
            f"download it first and give its folder ({what}: {refusal(error) or first_line(error, LONGEST)})"
        ) from None


def check_place(path: str) -> None:
    """Raises UserError for a folder that is not there, and whose name no repository of the hub could be meant by."""
    if Path(path).exists():
        return
    parts = Path(path).parts
    local = path.startswith((".", "/", "~")) or len(parts) > 2 or (len(parts) == 2 and Path(parts[0]).is_dir())
    if local or parts[:1] == ("runs",):
        raise UserError(f"there is no folder {path}; the working folder is {Path.cwd()}")


@contextmanager
def unreached_at_once(path: str) -> Iterator[None]:
    """Where the hub does not answer, its client takes what it has kept, and does not try again and again."""
    offline = constants.HF_HUB_OFFLINE
    if not offline and not Path(path).exists():
        constants.HF_HUB_OFFLINE = not reached()
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = offline


@cache
def reached() -> bool:
    """Whether the hub answers at all; asked once a process."""
    try:
        get_session().head(constants.ENDPOINT, timeout=constants.HF_HUB_ETAG_TIMEOUT)
    except Exception:  # its client's own kinds, whichever that is
        return False
    return True


def optional_file(path: str, name: str) -> Path | None:
    """A file of a checkpoint, fetched where it lies on the hub; None where there is none."""
    quiet = {f"_raise_exceptions_for_{kind}": False for kind in ("missing_entries", "connection_errors")}
    file = read(path, name, lambda path: cached_file(path, name, **quiet))
    return None if file is None else Path(file)


def adapter_config(path: str) -> dict[str, Any] | None:
    """Peft's, of a checkpoint of adapters alone; None for others. Raises UserError where a model lies beside them."""
    if Path(path).is_file() or (file := optional_file(path, ADAPTERS)) is None:
        return None
    if (file.parent / "config.json").exists():
        raise UserError(f"{path} holds a model and adapters; take {ADAPTERS} and its weights to a folder of their own")
    given: Any = read(path, ADAPTERS, lambda _: json.loads(file.read_bytes()))
    if not isinstance(given, dict):
        raise UserError(f"{file} can't be read as peft's configuration of adapters")
    return given


def base_of(path: str) -> str:
    """The base that adapters name; the path itself where there are none. Raises UserError where it is not here."""
    given = adapter_config(path)
    if given is None:
        return path
    base = given.get("base_model_name_or_path")
    if not isinstance(base, str) or not base:
        raise UserError(f"{path}/{ADAPTERS} names no base_model_name_or_path; write that of the base into it")
    if base.startswith(("/", ".")) and not Path(base).is_dir():
        raise UserError(
            f"the adapters in {path} belong to {base}, which is not here; give the base as policy.path and these as "
            "policy.start"
        )
    return base


def read_config(path: str) -> Any:
    """The configuration of a checkpoint. Raises UserError where its weights are quantised."""
    config = read(path, "config.json", AutoConfig.from_pretrained)
    for part in (config, *(getattr(config, name, None) for name in config.sub_configs)):
        if quantised := getattr(part, "quantization_config", None):
            method = quantised.get("quant_method") if isinstance(quantised, dict) else type(quantised).__name__
            raise UserError(
                f"the weights in {path} are quantised ({method}); take the same model in bfloat16, or serve this one "
                "and give the server's address"
            )
    return config


def read_tokenizer(path: str) -> PreTrainedTokenizerBase:
    """Read a checkpoint's tokenizer, in a folder or from the hub, without code of its own.

    Raises:
        UserError: If there is none, or it can't be read.
    """
    if Path(path).is_dir() and not any((Path(path) / name).exists() for name in VOCABULARIES):
        raise UserError(f"the folder {path} holds no readable tokenizer.json")  # some classes would start an empty one
    return read(path, "tokenizer", AutoTokenizer.from_pretrained)


def read_processor(path: str, kind: type[PilBackend], vision: Any) -> Any:
    """The image processor, of which nothing is guessed. Raises UserError where the vision tower wants another."""
    given: dict[str, Any] = read(path, PREPROCESSOR, lambda path: kind.get_image_processor_dict(path)[0])
    processor: Any = read(path, PREPROCESSOR, kind.from_pretrained)
    where = f"the folder {path} holds no readable {PREPROCESSOR}"
    for name in ("image_mean", "image_std"):
        values = given.get(name)
        if not isinstance(values, list) or len(values) != 3 or not all(_is_number(value) for value in values):
            raise UserError(f"{where}: {name} should be three numbers; take this file from the published model")
    if not _is_number(processor.rescale_factor) or 0 in (processor.rescale_factor, *given["image_std"]):
        raise UserError(f"{where}: rescale_factor or image_std is no divisor; take this file from the published model")
    for name in ("do_rescale", "do_normalize"):
        if not getattr(processor, name):
            raise UserError(f"{where}: {name} is off, but pictures are always normalised here")
    for ours, theirs in SHARED:
        has, wants = getattr(processor, ours, None), getattr(vision, theirs, None)
        if has is not None and wants is not None and has != wants:
            raise UserError(f"{where}: {ours} is {has}, but {theirs} in config.json is {wants}; they belong together")
    sides = dict(processor.size)
    if not sides or not all(isinstance(side, int) and side > 0 for side in sides.values()):
        raise UserError(f"{where}: size is {sides}; take this file from the published model")
    if "height" in sides and {sides["height"], sides.get("width")} != {vision.image_size}:
        raise UserError(f"{where}: size is {sides}, but image_size in config.json is {vision.image_size}")
    return processor


@cache
def shipped_families() -> dict[str, type[Any]]:
    """Classes by the `model_type` in the config.json of the checkpoints that they take, as every family's file says.

    The files of mgpo.policy.families are looked through when this is first asked.
    """
    found: dict[str, type[Any]] = {}
    for module in pkgutil.iter_modules(families.__path__, f"{families.__name__}."):
        for kind in vars(importlib.import_module(module.name)).values():
            if isinstance(kind, type) and kind.__module__ == module.name:
                found |= dict.fromkeys(vars(kind).get("model_types", ()), kind)
    return found


def family_of(path: str) -> Callable[..., Policy]:
    """The class that takes a checkpoint, or adapters' base. Raises UserError where there is none."""
    model_type, shipped = read_config(base_of(path)).model_type, shipped_families()
    if model_type not in shipped:
        raise UserError(f"{path} holds a {model_type} model; the families here are {', '.join(shipped)}")
    return shipped[model_type]


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)
