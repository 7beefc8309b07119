"""What `mgpo plan` predicts and what torch really holds, on small models: live storages, counted exactly."""

import copy
import random
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import count
from unittest.mock import patch

import torch
from PIL import Image
from transformers import PreTrainedTokenizerBase, Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

from mgpo.dialogues import BlindAnswer, Dialogue, TwoTurn
from mgpo.images.views import VisionResolution
from mgpo.objective import Objective
from mgpo.policy.families.qwen2_5_vl import Qwen25VL
from mgpo.policy.lora import Lora
from mgpo.policy.passes.batch import collate
from mgpo.rollout.episodes import roll_out
from mgpo.rollout.in_process import InProcessSampler, Sampling
from mgpo.tools.plan.launch import Devices, Launch
from mgpo.tools.plan.lengths import Said
from mgpo.tools.plan.memory import measure
from mgpo.tools.plan.settings import program_of, types_of
from mgpo.tools.plan.shape import measure_shape
from mgpo.training.loss import policy_loss
from mgpo.types import Message, Question, Trajectory
from tests.performance.live import AtOnce, Live

SIDE = 28  # pixels of an image token
HELD = ("weights", "gradients", "optimiser", "reference", "teacher", "pictures")


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
    pictures: int = 1  # of a question
    looks: int = 1
    blind: bool = False  # the answering turn is a conversation of its own


@dataclass(frozen=True)
class Comparison:
    """Bytes of a phase beyond what is held all the time, which is known exactly."""

    predicted: int
    measured: int

    @property
    def ratio(self) -> float:
        return self.predicted / self.measured


class Cropping(TwoTurn):
    """Every rollout gets a part of its own, which a random policy would not ask for."""

    places = count()

    def proceed(self, trajectory: Trajectory, resolution: VisionResolution) -> list[Message] | None:
        if len(trajectory.turns) < self.turns:
            left = next(self.places) % 64
            width, height = trajectory.views[0].size
            trajectory.turns[-1].text = f"[{left}, 0, {width - 64 + left}, {height}]"
        return super().proceed(trajectory, resolution)


class CroppingBlind(Cropping, BlindAnswer):
    """The same, but the answer has to come from that part alone."""


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


def dialogue_of(setting: Setting) -> Dialogue:
    """That of a setting's rollouts."""
    return CroppingBlind() if setting.blind else Cropping(turns=1 + setting.looks)


def rollouts(policy: Qwen25VL, setting: Setting, dialogue: Dialogue | None = None) -> list[Trajectory]:
    """Groups whose replies run into the limit."""
    side, draw = 40 * SIDE, random.Random(0)
    images = [Image.frombytes("RGB", (side, side), draw.randbytes(3 * side * side)) for _ in range(setting.pictures)]
    others = (None,) * (setting.pictures - 1)
    asked = [Question(str(i), None, "Which letter?", "K", others=others) for i in range(setting.questions)]  # type: ignore
    samples, sampling = [(question, *images) for question in asked], Sampling(setting.reply)
    with autocast(setting):
        return roll_out(
            policy.eval(), InProcessSampler(), dialogue or dialogue_of(setting), samples, setting.group, sampling,
            (0, 0),
        )  # fmt: skip


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
    needed = measure(measure_shape(policy.model.config), launch_of(setting, policy, trajectories))
    return {
        "rollouts": Comparison(beyond(needed.rollouts), rolling.peak - sum(patches.nbytes for patches in pixels)),
        "update": Comparison(beyond(needed.update) + needed.update.get("gradients", 0), updating.peak),
    }


def launch_of(setting: Setting, policy: Qwen25VL, trajectories: Sequence[Trajectory]) -> Launch:
    """What `mgpo plan` takes such a step for, given the lengths of its texts."""
    turns = trajectories[0].turns
    sizes = [[len(image.patches) // 4 for image in turn.prompt.images] for turn in turns]
    longest = [max(len(t.turns[k].prompt.ids) for t in trajectories) for k in range(len(turns))]
    texts = [tokens - sum(images) for tokens, images in zip(longest, sizes)]
    said = [Said(texts[0], wholes=len(sizes[0]))]
    said += [Said(texts[k], crops=len(sizes[k]), fresh=turns[k].prompt.fresh) for k in range(1, len(turns))]
    lora = policy.lora
    precision = "bf16-mixed" if setting.mixed else "32-true"
    weight, value, gradient = types_of(precision, policy.dtype.itemsize, lora is not None)
    own = 1 + sum(longest[1:]) + len(turns) * setting.reply
    micro_tokens = -(-setting.micro // setting.group) * (longest[0] - 1) + setting.micro * own
    return Launch(
        said=tuple(said), whole=sizes[0][0], crop=sizes[-1][0], side=SIDE, least=1,
        reply=setting.reply, limit=setting.reply, questions=setting.questions, group=setting.group,
        micro_tokens=micro_tokens, mini_batches=1, epochs=1, weight=weight, value=value,
        gradient=gradient, state=2 * gradient, freeze_vision=setting.freeze_vision,
        penalised=setting.reference, lora=(lora.rank, lora.pattern) if lora else None, devices=Devices(),
        checkpointing=setting.checkpointing, host=True, program=program_of(policy, weight, value),
    )  # fmt: skip


def beyond(parts: dict[str, int]) -> int:
    """Bytes of a phase besides what is known exactly."""
    return sum(size for kind, size in parts.items() if kind not in HELD)
