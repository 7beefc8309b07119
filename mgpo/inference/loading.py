"""From a path, a name or an address to a model that can be asked."""

import json
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import yaml

from mgpo.checkpoints.whole import load_state, trained
from mgpo.dialogues import Dialogue, TwoTurn
from mgpo.errors import UserError, first_line
from mgpo.inference.class_paths import path_of
from mgpo.inference.local import Model
from mgpo.inference.saving import SETTINGS
from mgpo.inference.served import ServedModel
from mgpo.inference.sharing import check_own, settings_on_hub
from mgpo.policy.base import Policy
from mgpo.policy.families.qwen2_5_vl import EMBEDDED
from mgpo.policy.families.qwen_pixels import PixelBudget
from mgpo.policy.hub.checkpoint_files import MODELS, family_of
from mgpo.policy.hub.run_weights import policy_weights
from mgpo.rollout.episodes import ANSWER_FORM
from mgpo.utils.configurations import arguments_from, made_from, read_text, shipped_config
from mgpo.utils.configurations import load as load_yaml

EMBEDDED_CONFIG = "mgpo"
ADDRESSES = ("http://", "https://")
MANY, SOME = 4096, 1280  # tokens of a picture: those that are spoken of, and those of the published recipe


def load(
    path: str | Path = EMBEDDED,
    dialogue: Dialogue | None = None,
    device: str | None = None,
    max_new_tokens: int | None = None,
    **options: Any,
) -> Model | ServedModel:
    """A model to ask: "embedded", a run's folder, an export, a checkpoint of transformers, or a server's address.

    Args:
        path: A run's folder, a checkpoint in it, and an export bring their own configuration; an export and a
            checkpoint of transformers are a folder or a hub name, such as owner/name; an address, such as
            http://localhost:8000/v1, is that of an OpenAI-compatible server.
        dialogue: Overrides that of the configuration.
        device: Of the weights; by default the first GPU, where there is one.
        max_new_tokens: A reply is cut here; by default where the configuration says, or at 1024.
        options: Of the policy's class, such as `max_pixels`, or `dtype`, which is the checkpoint's own by default; of
            `ServedModel`, such as `model`.

    Raises:
        UserError: Where nothing can be loaded.
    """
    folder, name = Path(path), str(path)
    if max_new_tokens is not None and not (isinstance(max_new_tokens, int) and max_new_tokens > 0):
        raise UserError(f"max_new_tokens is {max_new_tokens!r}; a reply has at least 1 token")
    if name.startswith(ADDRESSES):
        limit = {} if max_new_tokens is None else {"max_new_tokens": max_new_tokens}
        return _served({"base_url": name, **limit, **options}, dialogue)
    place = _device(device)  # before anything is read
    if name == EMBEDDED:
        model = _from_config(_model_part(shipped_config(EMBEDDED_CONFIG)), dialogue, options)
    elif (folder / SETTINGS).is_file():
        settings = _checked(folder / SETTINGS, json.loads)
        model = _from_config(settings, dialogue, {"path": name, **options})
    elif (folder / "config.yaml").is_file():
        model = _from_run(folder, None, dialogue, options)
    elif folder.exists() and folder.suffix == ".ckpt" and (config := folder.parent.parent / "config.yaml").is_file():
        model = _from_run(config.parent, folder, dialogue, options)
    elif (shared := settings_on_hub(name)) is not None:
        settings = _checked(shared, json.loads)
        settings |= {} if dialogue is None else {"dialogue": None}  # the caller's takes its place
        check_own(settings, name)
        model = _from_config(settings, dialogue, {"path": name, **options})
    elif folder.is_file():
        raise UserError(
            f"{name} is a file without a run around it; name the folder of a run, such as runs/mgpo/version_0, or of a "
            "model. Weights of a trainer of one's own go into a policy as start, and that into mgpo.Model"
        )
    elif folder.is_dir() and not any((folder / kind).is_file() for kind in MODELS):
        raise UserError(f"{name} holds neither a run (config.yaml) nor a model (config.json){_runs_in(folder)}")
    else:
        plain = {"class_path": path_of(family_of(name)), "init_args": {"path": name, "dtype": "auto"}}
        model = _from_config({"policy": plain}, dialogue, options)
        if "max_pixels" not in options:
            _tell_budget(name, model.policy)
    model.max_new_tokens = max_new_tokens or model.max_new_tokens
    model.policy.to(place)
    return model


def _from_run(folder: Path, checkpoint: Path | None, dialogue: Dialogue | None, options: dict[str, Any]) -> Model:
    """The model of a run's configuration, with the weights of this checkpoint of it, or those that it ended with."""
    model = _from_config(_model_part(folder / "config.yaml"), dialogue, options)
    checkpoint = checkpoint or trained(folder)
    model.policy.load_state_dict(policy_weights(str(checkpoint)))
    model.run, model.step = folder, load_state(checkpoint)["global_step"]
    return model


def load_with(path: str, dialogue: Dialogue | None, options: dict[str, Any] | None) -> Model | ServedModel:
    """`load` for a command's --model, --dialogue and --options.

    Raises:
        UserError: For options that are one of the other two, and where nothing can be loaded.
    """
    for name, other in (("path", "--model"), ("dialogue", "--dialogue")):
        if name in (options or {}):
            raise UserError(f"--options.{name}: that is {other}")
    return load(path, dialogue, **(options or {}))


def _device(name: str | None) -> torch.device:
    """That of the weights. Raises UserError for one that is none, or not here."""
    if name is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.empty(0, device=name).device
        if device.type == "cuda":
            torch.cuda.set_device(device)  # kernels of libraries go to the current one, wherever their tensors are
        return device
    except (RuntimeError, AssertionError) as error:
        raise UserError(
            f"device is {name!r}, which can't be used ({first_line(error)}); name another, such as cpu"
        ) from None


def _runs_in(folder: Path) -> str:
    """Which runs lie in a folder that is none, or around it, as the end of a sentence."""
    if (folder.parent / "config.yaml").is_file():
        return f"; its run is {folder.parent}"
    files = [*folder.glob("*/config.yaml"), *folder.glob("*/*/config.yaml")]
    return f"; a run there is {max(files, key=lambda file: file.stat().st_mtime).parent}" if files else ""


def _tell_budget(name: str, policy: Policy) -> None:
    """Warn of a checkpoint whose own cap lets pictures become very long."""
    whole = policy.resolution.full
    if isinstance(whole, PixelBudget) and (tokens := whole.max_pixels // whole.factor**2) > MANY:
        warnings.warn(
            f"{name} lets a picture have {whole.max_pixels:,} pixels, which are {tokens:,} tokens, and takes long for "
            f"them; max_pixels={SOME * whole.factor**2} would make it {SOME:,} tokens",
            stacklevel=3,
        )


def _model_part(config: Path) -> dict[str, Any]:
    return _checked(config, lambda text: load_yaml(text)["model"])


def _checked(file: Path, read: Callable[[str], Any]) -> dict[str, Any]:
    """What `_from_config` needs, from a file. Raises UserError where it is not there."""
    text = read_text(file)
    try:
        part = read(text)
        policy, _ = part["policy"], part["eval_sampling"]["max_new_tokens"]
        return {**part, "policy": {**policy, "init_args": dict(policy.get("init_args") or {})}}
    except (yaml.YAMLError, ValueError, LookupError, TypeError, AttributeError, RecursionError):
        raise UserError(f"{file} can't be read as the configuration of a run, with model.policy in it") from None


def _from_config(chosen: dict[str, Any], dialogue: Dialogue | None, options: dict[str, Any]) -> Model:
    """The policy and the dialogue of a configuration's `model`, built as the command line builds them."""
    policy = chosen["policy"]
    policy["init_args"] = {**policy["init_args"], **options}
    parts = made_from({"policy": policy, "dialogue": chosen.get("dialogue")}, policy=Policy, dialogue=Dialogue | None)
    if not isinstance(form := chosen.get("answer_form", ANSWER_FORM), str) or "{answer}" not in form:
        raise UserError(f"answer_form is {form!r}; it needs the slot {{answer}}")
    limit = chosen.get("eval_sampling", {}).get("max_new_tokens", 1024)
    return Model(parts.policy.load().eval(), dialogue or parts.dialogue or TwoTurn(), limit, answer_form=form)


def _served(options: dict[str, Any], dialogue: Dialogue | None) -> ServedModel:
    model = ServedModel(**arguments_from(ServedModel, "served", options, {"dialogue"}))
    model.dialogue = dialogue or model.dialogue
    return model
