"""Adapters that were saved alone, by `export --merge false` or by peft elsewhere."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from mgpo.errors import UserError
from mgpo.policy.hub.checkpoint_files import ADAPTERS, adapter_config, optional_file, read
from mgpo.policy.hub.weight_files import check_finite, check_names, named, unreported
from mgpo.policy.lora import Lora, in_float32, layers, lora_config

WEIGHTS = ("adapter_model.safetensors", "adapter_model.bin")
# What may stand in an adapter's configuration without changing what the adapter does here; all else must be empty.
HARMLESS = {
    "peft_type", "task_type", "auto_mapping", "peft_version", "base_model_name_or_path", "inference_mode", "r",
    "lora_alpha", "lora_dropout", "target_modules", "megatron_core", "qalora_group_size", "ensure_weight_tying",
}  # fmt: skip
STARTS = (True, False, "gaussian", "eva", "orthogonal")  # ways to begin that leave the base as it is
ADVICE = "merge them into their base with peft and give the merged checkpoint"


@dataclass(frozen=True)
class Adapters:
    """LoRA as this package trains it.

    Args:
        folder: Where they lie.
        lora: Their rank, scale and layers.
    """

    folder: str
    lora: Lora

    def put_into(self, model: Any, wanted: Lora | None) -> Lora:
        """Freeze the model and add them, to be trained in float32. Raises UserError where they are not as wanted."""
        try:
            own = layers(model, self.lora)
        except UserError as error:
            raise UserError(f"the adapters in {self.folder} can't be used here: {error}; or {ADVICE}") from None
        if wanted is not None:
            asked, has = (wanted.rank, wanted.alpha), (self.lora.rank, self.lora.alpha)
            if asked != has:
                raise UserError(
                    f"policy.lora has rank {asked[0]} and alpha {asked[1]}, the adapters in {self.folder} {has[0]} and "
                    f"{has[1]}; leave policy.lora out, and theirs are taken"
                )
            if different := sorted(own ^ layers(model, wanted)):
                raise UserError(
                    f"policy.lora.targets and the adapters in {self.folder} differ in {len(different)} layers, such as "
                    f"{different[0]}; leave policy.lora out, and theirs are taken"
                )
        options: Any = dict(is_trainable=True, ignore_mismatched_sizes=True, dtype_plan={"lora_": torch.float32})
        with unreported():
            found = model.load_adapter(
                adapter_state_dict=_weights(self.folder), peft_config=lora_config(self.lora), **options
            )
        check_names(self.folder, found.missing_keys, found.unexpected_keys, found.mismatched_keys)
        in_float32(model)
        return wanted or self.lora


def read_adapters(path: str) -> Adapters | None:
    """Those in a folder or under a hub name; None where there are none.

    Raises UserError where they do what can't be done here.
    """
    given = adapter_config(path)
    if given is None:
        return None
    lora = read(path, ADAPTERS, lambda _: _lora(path, given))
    return Adapters(path, lora)


def _lora(path: str, given: dict[str, Any]) -> Lora:
    if given["peft_type"] != "LORA":
        raise UserError(f"the adapters in {path} are {given['peft_type']}, not LORA; {ADVICE}")
    for name, value in given.items():
        start = name == "init_lora_weights" and value in STARTS
        if name not in HARMLESS and not start and value not in (None, False, "none", [], {}):
            raise UserError(f"the adapters in {path} have {name} {str(value)[:80]}, which is not known here; {ADVICE}")
    targets, rank, alpha = given["target_modules"], given["r"], given["lora_alpha"]
    if isinstance(targets, list) and targets:
        targets = rf"(.*\.)?({'|'.join(sorted(re.escape(target) for target in targets))})"
    if not isinstance(targets, str) or targets == "all-linear":
        raise UserError(
            f"the adapters in {path} have target_modules {str(targets)[:80]}, not a list of layers; {ADVICE}"
        )
    if not isinstance(rank, int) or rank < 1 or not isinstance(alpha, int | float) or alpha % 1:
        raise UserError(
            f"the adapters in {path} have r {rank} and lora_alpha {alpha}; take the file anew from its source"
        )
    return Lora(rank, int(alpha), targets)


def _weights(path: str) -> dict[str, Tensor]:
    for name in WEIGHTS:
        if (file := optional_file(path, name)) is not None:
            weights: Any = read(path, name, lambda _: _load(file))
            if not isinstance(weights, dict) or not all(isinstance(value, Tensor) for value in weights.values()):
                raise UserError(f"{path}/{name} holds no weights; take it anew from its source")
            check_finite(path, weights)
            if whole := [key for key in weights if ".lora_" not in key]:
                raise UserError(f"the adapters in {path} come with whole layers ({named(whole)}); {ADVICE}")
            return weights
    raise UserError(f"the adapters in {path} lack {WEIGHTS[0]}")


def _load(file: Path) -> Any:
    return load_file(file) if file.suffix == ".safetensors" else torch.load(file, map_location="cpu", weights_only=True)
