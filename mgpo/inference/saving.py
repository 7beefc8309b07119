"""A trained policy as a plain transformers checkpoint: for vLLM, for the hub, for anything without mgpo."""

import copy
import os
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors.torch import save_file
from torch import Tensor
from transformers import GenerationConfig

from mgpo.dialogues import Dialogue
from mgpo.errors import UserError
from mgpo.inference.card import model_card
from mgpo.inference.class_paths import check_settings, settings_of
from mgpo.policy.base import Policy
from mgpo.policy.hub.checkpoint_files import optional_file
from mgpo.rollout.episodes import ANSWER_FORM
from mgpo.utils.atomic_files import check_output, write_json, write_text

Dtype = Literal["float32", "bfloat16"]
# Weights of experts, by model_type, whose last two dimensions are published the other way round than transformers has
# them in memory. It reads both, and saves them as they are in memory; engines read what is published.
TURNED = {"qwen3_vl_moe": ("experts.gate_up_proj", "experts.down_proj")}
SETTINGS = "mgpo.json"  # policy, dialogue and limit, as in a run's configuration; read by mgpo.load
VIDEO = "video_preprocessor_config.json"
ADVICE = "name another --output"


def save_model(
    policy: Policy,
    dialogue: Dialogue,
    max_new_tokens: int,
    folder: Path,
    dtype: Dtype | None = None,
    merge: bool = True,
    name: str | None = None,
    run: Path | None = None,
    step: int | None = None,
    answer_form: str = ANSWER_FORM,
) -> None:
    """Write weights, configuration, tokenizer, image and video processor, chat template and a model card.

    The image processor carries the policy's pixel budget, so that a server shows pictures at the size of
    training; the generation defaults carry no penalties, since the policy learnt without.

    Args:
        policy: Loaded; it is not changed.
        dialogue: Its texts go into the card.
        max_new_tokens: Of a reply, for `mgpo.load`.
        folder: Made here; it appears when all is written.
        dtype: Of the saved weights; by default that of the policy's.
        merge: Add adapters to the weights; otherwise they alone are saved, with the place of their base.
        name: The repository that it is for, by which the card loads it.
        run: The folder of the run that trained it, whose figures go into the card.
        step: Updates after which it was saved there, of which the figures have to be.
        answer_form: The reply whose likelihood is the evidence of an audit.

    Raises:
        UserError: If the folder holds something, the dialogue can't be made again from what is saved, there are no
            adapters to be saved alone, or adapters for a repository belong to a base on this machine.
    """
    _check(policy, folder, merge)
    check_settings("the dialogue", dialogue, Dialogue)
    if name is not None and not merge and Path(getattr(policy, "path", "")).is_dir():
        raise UserError(f"the adapters' base is a folder here, which {name} can't point to; leave out --merge false")
    library = "transformers" if merge else "peft"
    card = model_card(policy, dialogue, max_new_tokens, name, run, step, library)
    unfinished = folder.with_name(folder.name + ".unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)  # what an attempt that was broken off has left
    unfinished.mkdir(parents=True)
    if merge:
        _save_whole(policy, unfinished, dtype)
    else:
        _save_adapters(policy, unfinished, dtype)
    settings = _settings(policy, dialogue, max_new_tokens, dtype if merge else None) | {"answer_form": answer_form}
    write_json(unfinished / SETTINGS, settings, ADVICE)
    save_processors(policy, unfinished)
    write_text(unfinished / "README.md", card, ADVICE)
    os.replace(unfinished, folder)


def check_folder(folder: Path) -> None:
    """Raises UserError, before anything is read, where a checkpoint can't be written, for whatever reason."""
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UserError(f"{folder} exists and is not empty; name another folder")
    check_output(folder.with_name(f".{folder.name}"))


def _check(policy: Policy, folder: Path, merge: bool) -> None:
    start = getattr(policy, "start", None)
    check_folder(folder)
    if not merge and getattr(policy, "lora", None) is None:
        raise UserError("this model has no adapters to be saved alone; leave out --merge false")
    if not merge and start is not None:
        raise UserError(f"these adapters belong to the weights in {start}; leave out --merge false to add them")


def _save_whole(policy: Any, folder: Path, dtype: Dtype | None) -> None:
    """The weights with adapters added, through an empty model of the same class."""
    kind = getattr(torch, dtype) if dtype else policy.model.dtype
    config = copy.deepcopy(policy.model.config)
    for part in (config, *(getattr(config, name) for name in config.sub_configs)):
        part.dtype = kind
    with torch.device("meta"):
        plain = type(policy.model)(config)
    plain.load_state_dict({name: value.to(kind) for name, value in merged_weights(policy.model)}, assign=True)
    plain.tie_weights()
    given = policy.model.generation_config
    ends = given.eos_token_id if given.eos_token_id is not None else policy.chat.end_id
    plain.generation_config = GenerationConfig(
        bos_token_id=given.bos_token_id, eos_token_id=ends, pad_token_id=policy.pad_id, do_sample=False
    )
    if config.model_type in TURNED:
        turned = {name: value.contiguous() for name, value in published(plain, plain.state_dict().items())}
        plain.save_pretrained(folder, state_dict=turned, save_original_format=False)
    else:
        plain.save_pretrained(folder)


def published(model: Any, weights: Iterable[tuple[str, Tensor]]) -> Iterator[tuple[str, Tensor]]:
    """Weights of a plain model by name, as a published checkpoint has them."""
    turned = TURNED.get(model.config.model_type, ())
    for name, value in weights:
        yield name, value.transpose(1, 2) if name.endswith(turned) else value


@torch.no_grad()
def merged_weights(model: Any) -> Iterator[tuple[str, Tensor]]:
    """The weights of the plain model by name, one after the other: W + (alpha / rank) B A where there is an adapter, W
    elsewhere. A sum is in float32, whatever type it is cast to afterwards, and made when it is asked for."""
    layers = dict(model.named_modules())
    for name, value in model.state_dict().items():
        if ".lora_" in name:
            continue
        owner, found, rest = name.partition(".base_layer.")
        if found and rest == "weight":
            layer = layers[owner]
            value = value.to(torch.promote_types(value.dtype, torch.float32))
            value = value + sum(layer.get_delta_weight(adapter) for adapter in layer.active_adapters)
        yield f"{owner}.{rest}" if found else name, value


def _save_adapters(policy: Any, folder: Path, dtype: Dtype | None) -> None:
    """As peft does, but without a copy of the layers that they are on."""
    from peft import get_peft_model_state_dict

    kind = getattr(torch, dtype) if dtype else torch.float32
    adapters = get_peft_model_state_dict(policy.model, save_embedding_layers=False)
    named = {f"base_model.model.{name}": value.to(kind).contiguous() for name, value in adapters.items()}
    save_file(named, folder / "adapter_model.safetensors", {"format": "pt"})
    (config,) = policy.model.peft_config.values()
    base = Path(policy.path)  # a relative place would be lost
    config.base_model_name_or_path = str(base.resolve()) if base.is_dir() else policy.path
    config.save_pretrained(folder)


def save_processors(policy: Any, folder: Path) -> None:
    """Tokenizer with its chat template, image processor with the policy's budget, video processor."""
    policy.tokenizer.save_pretrained(folder)
    processor = policy.saved_processor()
    processor.save_pretrained(folder)
    if given := optional_file(policy.path, VIDEO):
        shutil.copy(given, folder / VIDEO)
    elif name := policy.video_processor:
        shared = ("patch_size", "temporal_patch_size", "merge_size", "image_mean", "image_std")
        video = {"video_processor_type": name, **{key: getattr(processor, key) for key in shared}}
        write_json(folder / VIDEO, video, ADVICE)


def _settings(policy: Any, dialogue: Dialogue, max_new_tokens: int, dtype: Dtype | None) -> dict[str, Any]:
    """The `model` part of a configuration that makes this policy and dialogue again, from the folder it lies in."""
    kind = dtype or str(policy.model.dtype).removeprefix("torch.")
    return {
        "policy": {
            "class_path": settings_of(policy)["class_path"],
            "init_args": {"dtype": kind, **policy.saved_options()},
        },
        "dialogue": settings_of(dialogue),
        "eval_sampling": {"max_new_tokens": max_new_tokens},
    }
