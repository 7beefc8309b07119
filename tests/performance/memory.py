"""What `mgpo plan` predicts and what torch really holds, on small models: live storages, counted exactly."""

import copy
import random
import weakref
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import count
from typing import Any
from unittest.mock import patch

import torch
from PIL import Image
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from transformers import PreTrainedTokenizerBase, Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

from mgpo.dialogues import TwoTurn
from mgpo.images.views import VisionResolution
from mgpo.objective import Objective
from mgpo.policy.families.qwen2_5_vl import Qwen25VL
from mgpo.policy.lora import Lora
from mgpo.policy.passes.batch import collate
from mgpo.rollout.episodes import roll_out
from mgpo.rollout.in_process import InProcessSampler, Sampling
from mgpo.tools.plan.launch import Devices, Launch
from mgpo.tools.plan.lengths import Said
from mgpo.tools.plan.memory import Memory, measure
from mgpo.tools.plan.settings import program_of, types_of
from mgpo.tools.plan.shape import measure_shape
from mgpo.training.loss import policy_loss
from mgpo.types import Message, Question, Trajectory

SIDE = 28  # pixels of an image token
HELD = ("weights", "gradients", "optimiser", "reference", "pixels")


@dataclass(frozen=True)
class Setting:
    """A small model and a step of it."""

    width: int = 256
    layers: int = 4
    heads: int = 4
    kv_heads: int = 2
    mlp: int = 768
    vocabulary: int = 4096
    vision_width: int = 96
    vision_layers: int = 3
    vision_mlp: int = 256
    image: int = 64  # tokens at the cap, for crops too
    reply: int = 48
    group: int = 8
    micro: int = 4
    questions: int = 2
    dtype: str = "float32"
    lora: int | None = None
    lora_vision: bool = False
    mixed: bool = False
    freeze_vision: bool = False
    checkpointing: bool = False
    reference: bool = False
    entropy: bool = False


@dataclass(frozen=True)
class Comparison:
    """Bytes of a phase beyond what is held all the time, which is known exactly."""

    predicted: int
    measured: int

    @property
    def ratio(self) -> float:
        return self.predicted / self.measured


class Live(TorchDispatchMode):
    """The highest sum of all storages that are alive, besides those of `known` tensors."""

    def __init__(self, known: Iterable[Tensor]) -> None:
        super().__init__()
        self.known = {tensor.untyped_storage()._cdata for tensor in known}
        self.now = self.peak = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(made):
            if isinstance(tensor, Tensor):
                self._add(tensor.untyped_storage())
        return made

    def _add(self, storage: Any) -> None:
        key, size = storage._cdata, storage.nbytes()
        if key not in self.known:
            self.known.add(key)
            self.now += size
            self.peak = max(self.peak, self.now)
            weakref.finalize(storage, self._drop, key, size)

    def _drop(self, key: int, size: int) -> None:
        self.known.discard(key)
        self.now -= size


class AtOnce(ThreadPoolExecutor):
    """No threads: everything is done where it is asked for."""

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future:
        future: Future = Future()
        future.set_result(fn(*args, **kwargs))
        return future


class Cropping(TwoTurn):
    """Every rollout gets a part of its own, which a random policy would not ask for."""

    places = count()

    def proceed(self, trajectory: Trajectory, resolution: VisionResolution) -> list[Message] | None:
        if len(trajectory.turns) == 1:
            left = next(self.places) % 64
            width, height = trajectory.views[0].size
            trajectory.turns[0].text = f"[{left}, 0, {width - 64 + left}, {height}]"
        return super().proceed(trajectory, resolution)


def build(setting: Setting, tokenizer: PreTrainedTokenizerBase) -> Qwen25VL:
    """A random policy of that shape."""
    ids = {token: tokenizer.convert_tokens_to_ids(f"<|{token}|>") for token in ("im_end", "endoftext", "image_pad")}
    third = setting.width // setting.heads // 6
    section = [setting.width // setting.heads // 2 - 2 * third, third, third]
    vision = dict(
        depth=setting.vision_layers, hidden_size=setting.vision_width, intermediate_size=setting.vision_mlp,
        num_heads=setting.vision_width // 32, out_hidden_size=setting.width,
        fullatt_block_indexes=[setting.vision_layers - 1],
    )  # fmt: skip
    text = dict(
        vocab_size=setting.vocabulary, hidden_size=setting.width, intermediate_size=setting.mlp,
        num_hidden_layers=setting.layers, num_attention_heads=setting.heads, num_key_value_heads=setting.kv_heads,
        rope_parameters={"rope_type": "default", "rope_theta": 1e4, "mrope_section": section},
        tie_word_embeddings=False, bos_token_id=None, eos_token_id=ids["im_end"], pad_token_id=ids["endoftext"],
    )  # fmt: skip
    config = Qwen2_5_VLConfig(
        vision_config=vision, text_config=text, tie_word_embeddings=False, image_token_id=ids["image_pad"]
    )
    torch.manual_seed(0)
    model = Qwen2_5_VLForConditionalGeneration(config).to(getattr(torch, setting.dtype))
    lora = Lora(setting.lora, vision=setting.lora_vision) if setting.lora else None
    policy = Qwen25VL(
        min_pixels=SIDE**2, max_pixels=setting.image * SIDE**2, dtype=setting.dtype, lora=lora,
        freeze_vision=setting.freeze_vision, gradient_checkpointing=setting.checkpointing,
    )  # fmt: skip
    policy.attach(model, tokenizer, Qwen2VLImageProcessorPil())
    enders = [policy.chat.end_id, *(i for i, text in enumerate(policy.token_texts) if "`" in text)]
    policy.banned[enders] = True  # every reply runs into the limit, as the prediction says
    return policy


def rollouts(policy: Qwen25VL, setting: Setting) -> list[Trajectory]:
    """Groups whose replies run into the limit."""
    side = 40 * SIDE
    image = Image.frombytes("RGB", (side, side), random.Random(0).randbytes(3 * side * side))
    samples = [(Question(str(i), None, "Which letter?", "K"), image) for i in range(setting.questions)]  # type: ignore
    sampling = Sampling(setting.reply)
    with autocast(setting):
        return roll_out(policy.eval(), InProcessSampler(), Cropping(), samples, setting.group, sampling, (0, 0))


def autocast(setting: Setting) -> torch.autocast:
    """As Lightning does under bf16-mixed."""
    return torch.autocast("cpu", torch.bfloat16, enabled=setting.mixed, cache_enabled=False)


def update(
    policy: Qwen25VL,
    trajectories: Sequence[Trajectory],
    setting: Setting,
    optimizer: torch.optim.Optimizer,
    frozen: Qwen25VL | None,
) -> None:
    """All micro-batches of one update, as the module makes them."""
    policy.train()
    objective = Objective(kl_weight=0.1 if frozen else 0.0, entropy_weight=0.01 if setting.entropy else 0.0)
    weights_N = torch.full((len(trajectories),), 1e-3)
    for rows in torch.arange(len(trajectories)).split(setting.micro):
        batch = collate([trajectories[i] for i in rows], policy.positions, policy.pad_id)
        with autocast(setting):
            loss, _ = policy_loss(policy, batch, torch.ones(len(rows)), weights_N[rows], objective, 1.0, frozen)
            loss.backward()
    torch.nn.utils.clip_grad_norm_(policy.parameters(), 1.0)
    optimizer.step()
    optimizer.zero_grad()


def compare(setting: Setting, tokenizer: PreTrainedTokenizerBase) -> dict[str, Comparison]:
    """A step in its steady state (optimiser states are there), measured and predicted, by phase."""
    policy = build(setting, tokenizer)
    frozen = copy.deepcopy(policy).requires_grad_(False).eval() if setting.reference else None
    optimizer = torch.optim.AdamW([p for p in policy.parameters() if p.requires_grad], lr=1e-6)
    update(policy, rollouts(policy, setting), setting, optimizer, frozen)
    held = [*policy.parameters(), *policy.buffers()]
    held += [value for state in optimizer.state.values() for value in state.values()]
    held += [*frozen.parameters(), *frozen.buffers()] if frozen else []
    trajectories: list[Trajectory] = []
    with (
        Live(held) as rolling,
        patch("mgpo.rollout.episodes.ThreadPoolExecutor", AtOnce),
    ):  # other threads are not counted
        trajectories += rollouts(policy, setting)
    pixels = {id(i): i.patches for t in trajectories for turn in t.turns for i in turn.prompt.images}.values()
    with Live([*held, *pixels]) as updating:
        update(policy, trajectories, setting, optimizer, frozen)
    needed = predict(setting, policy, trajectories)
    return {
        "rollouts": Comparison(_beyond(needed.rollouts), rolling.peak - sum(patches.nbytes for patches in pixels)),
        "update": Comparison(_beyond(needed.update) + needed.update.get("gradients", 0), updating.peak),
    }


def predict(setting: Setting, policy: Qwen25VL, trajectories: Sequence[Trajectory]) -> Memory:
    """What `mgpo plan` says of such a step, given the lengths of its texts."""
    images = [len(turn.prompt.images[0].patches) // 4 for turn in trajectories[0].turns]
    texts = [max(len(t.turns[k].prompt.ids) for t in trajectories) - images[k] for k in range(2)]
    lora = policy.lora
    precision = "bf16-mixed" if setting.mixed else "32-true"
    weight, value, gradient = types_of(precision, policy.dtype.itemsize, lora is not None)
    own = 1 + texts[1] + images[1] + 2 * setting.reply
    micro_tokens = -(-setting.micro // setting.group) * (texts[0] + images[0] - 1) + setting.micro * own
    launch = Launch(
        said=(Said(texts[0], "whole"), Said(texts[1], "crop")), whole=images[0], crop=images[1], side=SIDE, least=1,
        reply=setting.reply, limit=setting.reply, questions=setting.questions, group=setting.group,
        micro_tokens=micro_tokens, mini_batches=1, epochs=1, weight=weight, value=value,
        gradient=gradient, state=2 * gradient, freeze_vision=setting.freeze_vision,
        penalised=setting.reference, lora=(lora.rank, lora.pattern) if lora else None, devices=Devices(),
        checkpointing=setting.checkpointing, host=True, program=program_of(policy, weight, value),
    )  # fmt: skip
    return measure(measure_shape(policy.model.config), launch)


def _beyond(parts: dict[str, int]) -> int:
    return sum(size for kind, size in parts.items() if kind not in HELD)
