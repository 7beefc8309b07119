"""A tiny random Qwen2.5-VL in the files of the published ones, with their whole vocabulary."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from transformers import PreTrainedTokenizerFast

from tests.helpers.families import ALL, PLAIN_ROPE, TEXT, TOWER, make_model
from tests.helpers.vocabulary import CONTROL, PLAIN, SIZE, TEMPLATE, make_tokenizer

ROWS = 151_936  # of the embedding, which is longer than the vocabulary
(FAMILY,) = [family for family in ALL if family.name == "qwen2_5_vl"]
CAPS = FAMILY.caps
LIKELY = "A"
# Before there was a `text_config`, the decoder's settings stood beside everything else.
CONFIG = {
    "architectures": ["Qwen2_5_VLForConditionalGeneration"], "model_type": "qwen2_5_vl", "bos_token_id": SIZE,
    "eos_token_id": 151645, "vision_start_token_id": 151652, "vision_end_token_id": 151653, "vision_token_id": 151654,
    "image_token_id": 151655, "video_token_id": 151656, "hidden_act": "silu", "initializer_range": 0.02,
    "attention_dropout": 0.0, "max_window_layers": 4, "rms_norm_eps": 1e-06, "rope_theta": PLAIN_ROPE["rope_theta"],
    "rope_scaling": {"type": "mrope", "mrope_section": PLAIN_ROPE["mrope_section"]}, "sliding_window": 4096,
    "use_sliding_window": False, "tie_word_embeddings": True, "torch_dtype": "float32", "use_cache": True,
    "vocab_size": ROWS, "transformers_version": "4.41.2", **TEXT,
    "vision_config": {
        **TOWER, "patch_size": 14, "spatial_patch_size": 14, "window_size": 56, "fullatt_block_indexes": [1],
        "hidden_act": "silu", "in_chans": 3, "tokens_per_second": 4,
    },
}  # fmt: skip
PROCESSOR = {
    "min_pixels": 2 * 28 * 28, "max_pixels": 12 * 28 * 28, "patch_size": 14, "temporal_patch_size": 2, "merge_size": 2,
    "image_mean": [0.48145466, 0.4578275, 0.40821073], "image_std": [0.26862954, 0.26130258, 0.27577711],
    "image_processor_type": "Qwen2VLImageProcessor", "processor_class": "Qwen2_5_VLProcessor",
}  # fmt: skip
ADDED = {
    str(SIZE + i): dict(
        content=token, lstrip=False, normalized=False, rstrip=False, single_word=False, special=token in CONTROL
    )
    for i, token in enumerate([*CONTROL, *PLAIN])
}
TOKENIZER = {
    "add_bos_token": False, "add_prefix_space": False, "added_tokens_decoder": ADDED,
    "additional_special_tokens": CONTROL[1:], "bos_token": None, "chat_template": TEMPLATE,
    "clean_up_tokenization_spaces": False, "eos_token": "<|im_end|>", "errors": "replace", "model_max_length": 131072,
    "pad_token": "<|endoftext|>", "split_special_tokens": False, "tokenizer_class": "Qwen2Tokenizer",
    "unk_token": None,
}  # fmt: skip


def publish(folder: Path) -> Path:
    """One file of weights, and every other file that such a repository has."""
    tokenizer = make_tokenizer()
    model = make_model(FAMILY, tokenizer, tied=True, rows=ROWS)
    make_sure_of(model, tokenizer.convert_tokens_to_ids(LIKELY))
    model.save_pretrained(folder)
    _write(folder / "config.json", CONFIG)
    _write(folder / "preprocessor_config.json", PROCESSOR)
    _write(folder / "tokenizer_config.json", TOKENIZER)
    write_vocabulary(tokenizer, folder)
    return folder


@torch.no_grad()
def make_sure_of(model: Any, token: int) -> None:
    """Have it nearly always say this token, as trained models are sure of what they say: the others' share is small,
    and made up of very many."""
    head = model.lm_head.weight
    head.mul_(0.1)
    head[:, 0] = 3.0
    head[token, 0] = 6.6


def write_vocabulary(tokenizer: PreTrainedTokenizerFast, folder: Path) -> None:
    """In one file, and in the two of older tokenizers."""
    text = tokenizer.backend_tokenizer.to_str()
    (folder / "tokenizer.json").write_text(text, encoding="utf-8")
    model = json.loads(text)["model"]
    (folder / "vocab.json").write_text(json.dumps(model["vocab"], ensure_ascii=False), encoding="utf-8")
    lines = ["#version: 0.2", *(" ".join(pair) for pair in model["merges"])]
    (folder / "merges.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")


def _write(file: Path, content: dict[str, Any]) -> None:
    file.write_text(json.dumps(content, indent=2), encoding="utf-8")


def _change(file: Path, change: Callable[[dict[str, Any]], Any]) -> Any:
    """Change a file's content, as a copy of its own where it was a link; what the change returns."""
    content = json.loads(file.read_text(encoding="utf-8"))
    returned = change(content)
    file.unlink()
    _write(file, content)
    return returned


def _only(*names: str) -> Callable[[Path], None]:
    """Without these files."""
    return lambda folder: [(folder / name).unlink() for name in names] and None


def _shard(folder: Path) -> None:
    tensors = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    names = sorted(tensors)
    files = [f"model-0000{i}-of-00002.safetensors" for i in (1, 2)]
    where = {name: files[2 * i // len(names)] for i, name in enumerate(names)}
    for file in files:
        part = {name: tensors[name].clone() for name in names if where[name] == file}
        save_file(part, folder / file, {"format": "pt"})
    total = sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())
    _write(folder / "model.safetensors.index.json", {"metadata": {"total_size": total}, "weight_map": where})


def _take_template(folder: Path) -> str:
    return _change(folder / "tokenizer_config.json", lambda content: content.pop("chat_template"))


def _template_as_json(folder: Path) -> None:
    _write(folder / "chat_template.json", {"chat_template": _take_template(folder)})


def _template_as_jinja(folder: Path) -> None:
    (folder / "chat_template.jinja").write_text(_take_template(folder))


def _template_in_both(folder: Path) -> None:
    _write(folder / "chat_template.json", {"chat_template": TEMPLATE})


def _one_processor(folder: Path) -> None:
    own = _change(folder / "preprocessor_config.json", lambda content: dict(content))
    (folder / "preprocessor_config.json").unlink()
    _write(folder / "processor_config.json", {"processor_class": own.pop("processor_class"), "image_processor": own})


def _template_of_processor(folder: Path) -> None:
    own = _change(folder / "preprocessor_config.json", lambda content: dict(content))
    _write(folder / "processor_config.json", {"image_processor": own, "chat_template": _take_template(folder)})


def _pixels_as_size(folder: Path) -> None:
    def change(content: dict[str, Any]) -> None:
        content["size"] = dict(shortest_edge=content.pop("min_pixels"), longest_edge=content.pop("max_pixels"))

    _change(folder / "preprocessor_config.json", change)


def _nested(folder: Path) -> None:
    def change(content: dict[str, Any]) -> None:
        own = [*TEXT, "rms_norm_eps", "rope_theta", "rope_scaling", "vocab_size", "hidden_act", "sliding_window"]
        content["text_config"] = {key: content.pop(key) for key in own} | {"model_type": "qwen2_5_vl_text"}

    _change(folder / "config.json", change)


FORMS: dict[str, Callable[[Path], None]] = {
    "as published": lambda folder: None,
    "sharded weights": _shard,
    "tokenizer.json alone": _only("vocab.json", "merges.txt"),
    "vocab.json and merges.txt": _only("tokenizer.json"),
    "template in chat_template.json": _template_as_json,
    "template in chat_template.jinja": _template_as_jinja,
    "template in two files": _template_in_both,
    "processor_config.json": _one_processor,
    "template in processor_config.json": _template_of_processor,
    "caps as a size": _pixels_as_size,
    "settings of the decoder by themselves": _nested,
}


def in_form(published: Path, form: str, folder: Path) -> Path:
    """The same checkpoint in another form of its files; what does not change is linked to."""
    folder.mkdir()
    for file in published.iterdir():
        os.symlink(file, folder / file.name)
    FORMS[form](folder)
    return folder
