"""Models on the hub: an export pushed there, and one asked for by its name."""

import re
from pathlib import Path
from typing import Any

from huggingface_hub import HfApi, constants, get_token

from mgpo.errors import UserError, first_line
from mgpo.inference.saving import SETTINGS
from mgpo.policy.hub.checkpoint_files import optional_file
from mgpo.policy.hub.refusals import refusal

NAME = re.compile(r"[A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9][\w.-]{0,95}")  # owner/name
DOTTED = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)+")  # what a configuration would import
SHOWN = 200  # characters of a complaint
# Of an earlier push: a model may become adapters, or lie in fewer files.
REPLACED = ["adapter_*", "config.json", "generation_config.json", "*.safetensors", "*.safetensors.index.json"]


def check_push(name: str) -> None:
    """Look whether a push could work, before anything is made for it. Raises UserError."""
    if not NAME.fullmatch(name):
        raise UserError(f"--push {name[:SHOWN]}: name a repository as owner/name, such as jane/street-signs")
    if constants.HF_HUB_OFFLINE:
        raise UserError(f"--push {name}: HF_HUB_OFFLINE keeps this machine off the hub; unset it, or leave out --push")
    if get_token() is None:
        raise UserError(f"--push {name}: no token is known here: `hf auth login`, or set HF_TOKEN")


def push(folder: Path, name: str, private: bool = True) -> str:
    """Upload an export, into a new repository or in place of the model that one holds, and give its address.

    Raises:
        UserError: Where the hub can't be reached or refuses; the export stays where it is.
    """
    api = HfApi()
    try:
        address = api.create_repo(name, private=private, exist_ok=True)
        message = "A model exported by mgpo"
        api.upload_folder(repo_id=name, folder_path=folder, commit_message=message, delete_patterns=REPLACED)
    except Exception as error:  # a client's many kinds, and those of its client
        why = refusal(error) or first_line(error)
        raise UserError(
            f"--push {name}: {why}; the export is in {folder}, and `hf upload {name} {folder}` pushes it later"
        ) from None
    return str(address)


def settings_on_hub(name: str) -> Path | None:
    """The mgpo.json of a repository, from the cache where the hub can't be reached; None where it has none."""
    return optional_file(name, SETTINGS) if NAME.fullmatch(name) and not Path(name).exists() else None


def check_own(settings: Any, name: str) -> None:
    """Look whether a stranger's settings name mgpo's own classes alone: what they name is imported and run.

    A text may be a configuration too, which the parser would read.

    Raises:
        UserError: For the first that is another's, and for a policy or dialogue that is no class path with arguments.
    """
    parts = [settings.get(key) for key in ("policy", "dialogue")] if isinstance(settings, dict) else [None]
    if not all(part is None or isinstance(part, dict) for part in parts):
        raise UserError(f"{name}: its mgpo.json can't be read as the settings of an export")
    for text in _texts(parts):
        if ("class_path" in text or DOTTED.fullmatch(text)) and not text.startswith("mgpo."):
            raise UserError(
                f"{name}: its mgpo.json names {text[:SHOWN]}, which is not mgpo's own, and no stranger's code is run; "
                f"if you trust it, `hf download {name} --local-dir …` and load that folder, or hand over a dialogue"
            )


def _texts(value: Any) -> list[str]:
    if isinstance(value, dict):
        return [text for part in value.values() for text in _texts(part)]
    if isinstance(value, list):
        return [text for part in value for text in _texts(part)]
    return [value.strip("\"' \n\t")] if isinstance(value, str) else []
