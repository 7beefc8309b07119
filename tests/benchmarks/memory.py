"""Peak memory of real passes of small models, by torch's own accounting."""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import accumulate, count
from typing import Any

import torch
from PIL import Image
from torch.profiler import ProfilerActivity, profile
from transformers import PreTrainedTokenizerBase, Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

from mgpo.dialogues import TwoTurn
from mgpo.loss import policy_loss
from mgpo.objective import Objective
from mgpo.policy.batch import collate
from mgpo.policy.lora import Lora
from mgpo.policy.qwen2_5_vl import Qwen25VL
from mgpo.rollout import roll_out
from mgpo.sampler import InProcessSampler, Sampling
from mgpo.types import Message, Question, Trajectory
from mgpo.views import Sight

FACTOR = 28  # pixels of a merged token's side


@dataclass(frozen=True)
class Setting:
    """A small model and what it is run on: widths, lengths in tokens, rows."""

    width: int = 256
    layers: int = 4
    heads: int = 4
    kv_heads: int = 2
    mlp: int = 768
    vocabulary: int = 4096
    vision_width: int = 96
    vision_layers: int = 3
    vision_mlp: int = 256
    tokens: int = 64  # of an image
    crop_tokens: int = 36
    reply: int = 48
    group: int = 8
    micro: int = 4
    questions: int = 2
    dtype: str = "float32"
    lora: int | None = None


def build(setting: Setting, tokenizer: PreTrainedTokenizerBase) -> Qwen25VL:
    """A random policy of that shape."""
    ids = {token: tokenizer.convert_tokens_to_ids(f"<|{token}|>") for token in ("im_end", "endoftext", "image_pad")}
    vision = dict(
        depth=setting.vision_layers, hidden_size=setting.vision_width, intermediate_size=setting.vision_mlp,
        num_heads=setting.vision_width // 32, patch_size=14, spatial_merge_size=2, temporal_patch_size=2,
        out_hidden_size=setting.width, window_size=112, fullatt_block_indexes=[setting.vision_layers - 1],
    )  # fmt: skip
    half = setting.width // setting.heads // 2
    text = dict(
        vocab_size=setting.vocabulary, hidden_size=setting.width, intermediate_size=setting.mlp,
        num_hidden_layers=setting.layers, num_attention_heads=setting.heads, num_key_value_heads=setting.kv_heads,
        max_position_embeddings=8192, tie_word_embeddings=False, bos_token_id=None, eos_token_id=ids["im_end"],
        rope_parameters={"rope_type": "default", "rope_theta": 1e4, "mrope_section": [half - half // 3 * 2, half // 3, half // 3]},
        pad_token_id=ids["endoftext"],
    )  # fmt: skip
    config = Qwen2_5_VLConfig(
        vision_config=vision, text_config=text, tie_word_embeddings=False, image_token_id=ids["image_pad"]
    )
    torch.manual_seed(0)
    model = Qwen2_5_VLForConditionalGeneration(config).to(getattr(torch, setting.dtype))
    caps = dict(
        min_pixels=FACTOR**2, max_pixels=setting.tokens * FACTOR**2, crop_max_pixels=setting.crop_tokens * FACTOR**2
    )
    policy = Qwen25VL(dtype=setting.dtype, lora=Lora(setting.lora) if setting.lora else None, **caps)
    policy.attach(model, tokenizer, Qwen2VLImageProcessorPil())
    return policy.train()


def peak(run: Callable[[], Any]) -> int:
    """Bytes at the highest point of a call above those that were there before it."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True, acc_events=True) as seen:
        run()
    events = seen.profiler.kineto_results.events()
    steps = sorted((event.start_ns(), event.nbytes()) for event in events if event.name() == "[memory]")
    return max(accumulate((nbytes for _, nbytes in steps), initial=0))


class Cropping(TwoTurn):
    """Every rollout gets a part of its own: a random policy writes no box."""

    def proceed(self, trajectory: Trajectory, sight: Sight) -> list[Message] | None:
        if len(trajectory.turns) == 1:
            left = next(self.places) % 64
            width, height = trajectory.views[0].size
            trajectory.turns[0].text = f"[{left}, 0, {width - 64 + left}, {height}]"
        return super().proceed(trajectory, sight)

    places = count()


def rollouts(policy: Qwen25VL, setting: Setting) -> list[Trajectory]:
    """Groups with replies up to the limit: a random policy hardly ever ends one."""
    side = 40 * FACTOR
    image = Image.frombytes("RGB", (side, side), random.Random(0).randbytes(3 * side * side))
    samples = [(Question(str(i), None, "Which letter?", "K"), image) for i in range(setting.questions)]  # type: ignore
    policy.eval()
    return roll_out(
        policy, InProcessSampler(), Cropping(), samples, setting.group, Sampling(setting.reply), (0, 0)
    )  # fmt: skip


def update(
    policy: Qwen25VL, trajectories: Sequence[Trajectory], setting: Setting, optimizer: torch.optim.Optimizer,
    frozen: Qwen25VL | None,
) -> None:  # fmt: skip
    """All micro-batches of one update, as the module makes them."""
    policy.train()
    objective = Objective(kl_weight=0.1 if frozen or policy.lora else 0.0)
    weights_N = torch.full((len(trajectories),), 1e-3)
    for rows in torch.arange(len(trajectories)).split(setting.micro):
        batch = collate([trajectories[i] for i in rows], policy.positions, policy.pad_id)
        loss, _ = policy_loss(policy, batch, torch.ones(len(rows)), weights_N[rows], objective, 1.0, frozen)
        loss.backward()
    torch.nn.utils.clip_grad_norm_(policy.parameters(), 1.0)
    optimizer.step()
