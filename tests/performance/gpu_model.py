"""Checkpoints of the published sizes with random weights, and photographs to look at: all that needs no network."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageDraw
from transformers import AutoModelForImageTextToText, AutoTokenizer, PreTrainedConfig
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

from mgpo.tools.plan.sizes import QWEN2_5_VL
from tests.helpers.families import ALL, save_checkpoint
from tests.helpers.vocabulary import make_tokenizer

TINY = "tiny"
KNOWN = (TINY, *QWEN2_5_VL.sizes)
SECTIONS = [16, 24, 24]  # of a head's rotary angles: time, height, width
ASKED = "Which colour has the small square beside the largest patch at the left border?"
OPTIONS = ["red", "green", "blue", "yellow", "None of these"]


def make_model(size: str, folder: Path, device: str, tokenizer: Path | None = None) -> None:
    """A Qwen2.5-VL of that size in bfloat16, with the published vocabulary; tiny is the tests' own, in float32.

    The tokenizer is read from a folder, or made from what qwen-agent ships.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if size == TINY:
        save_checkpoint(ALL[0], folder)
        return
    words = AutoTokenizer.from_pretrained(tokenizer) if tokenizer else make_tokenizer()
    with torch.device(device):
        model = AutoModelForImageTextToText.from_config(config_of(size), dtype=torch.bfloat16)
    draw_weights(model, torch.Generator(device).manual_seed(0))
    model.save_pretrained(folder)
    words.save_pretrained(folder)
    Qwen2VLImageProcessorPil(size=dict(shortest_edge=56 * 56, longest_edge=16384 * 28 * 28)).save_pretrained(folder)


def config_of(size: str) -> PreTrainedConfig:
    """As published, with the ids of the control tokens."""
    config: Any = QWEN2_5_VL.config(size)
    config.text_config.rope_parameters["mrope_section"] = SECTIONS
    config.image_token_id, config.video_token_id = 151655, 151656
    config.vision_start_token_id, config.vision_end_token_id = 151652, 151653
    return config


@torch.no_grad()
def draw_weights(model: Any, generator: torch.Generator) -> None:
    """Wide enough that signals neither die out nor grow over the layers."""
    for name, parameter in model.named_parameters():
        if parameter.ndim > 1:
            std = 1.0 if "embed_tokens" in name else 0.5
            parameter.normal_(0, std / parameter[0].numel() ** 0.5, generator=generator)


def make_photographs(folder: Path, count: int, size: tuple[int, int]) -> Path:
    """JPEGs with smooth ground and sharp patches, and their questions as JSONL; the path of the latter."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = []
    for number in range(count):
        _photograph(np.random.default_rng(number), size).save(folder / f"{number}.jpg", quality=90)
        answer = OPTIONS[number % len(OPTIONS)]
        row = dict(id=str(number), image=f"{number}.jpg", question=ASKED, choices=OPTIONS, answer=answer)
        rows.append(json.dumps(row))
    (folder / "questions.jsonl").write_text("\n".join(rows) + "\n")
    return folder / "questions.jsonl"


def _photograph(random: np.random.Generator, size: tuple[int, int]) -> Image.Image:
    ground = Image.fromarray(random.integers(0, 256, (30, 45, 3), dtype=np.uint8))
    photograph = ground.resize(size, Image.Resampling.BICUBIC)
    brush = ImageDraw.Draw(photograph)
    for _ in range(50):
        left, top = (int(random.integers(0, side)) for side in size)
        side = int(random.integers(3, max(4, size[0] // 30)))
        colour = tuple(int(value) for value in random.integers(0, 256, 3))
        brush.rectangle((left, top, left + side, top + side), fill=colour)
    return photograph
