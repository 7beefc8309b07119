"""The shape of a model, counted on the meta device: no weight is read, none is allocated."""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import AutoConfig, AutoModelForImageTextToText, PreTrainedConfig

from mgpo.errors import UserError, first_line
from mgpo.policy.features import TOGETHER
from mgpo.tools.plan.sizes import published_as


@dataclass(frozen=True)
class Block:
    """The layers of a transformer, by how many values they make of a token.

    `attention` is heads x head size, `key_value` that of the keys (and again of the values), `mlp` the inner
    width, `gated` whether a gate multiplies it (SwiGLU). `parameters` are those of one layer, the mean
    where they differ, and `active` those that a token passes, in a mixture of experts through the chosen ones.
    """

    layers: int
    width: int
    heads: int
    attention: int
    key_value: int
    mlp: int
    gated: bool
    parameters: int
    active: int

    @property
    def repeated(self) -> int:
        """Values of a token's keys once they are laid out for all heads; a single head is only looked at again."""
        return self.attention if self.key_value > self.attention // self.heads else self.key_value


@dataclass(frozen=True)
class Shape:
    """What memory depends on.

    `seeing` are the parameters of the tower and of what projects its features,
    `patch` is a patch's side in pixels, `patch_values` the numbers in it, `merge` the patches on the side of an
    image token, `image_tokens` what every image becomes in families that have one size; `linears` maps the full name
    of each linear layer to its inputs and outputs.
    """

    language: Block
    vision: Block
    vocabulary: int
    parameters: int
    seeing: int
    patch: int
    patch_values: int
    merge: int
    image_tokens: int | None
    linears: dict[str, tuple[int, int]]

    @property
    def still_values(self) -> int:
        """The numbers of a patch that the tower is given: its frames are all the same."""
        return 3 * self.patch**2

    def together(self, image_tokens: int, image: int, values: int = TOGETHER) -> int:
        """Of so many image tokens, in images of `image`, those that go through the tower in one call of `values`."""
        return min(image_tokens, max(image, values // (self.patch_values * self.merge**2)))

    def adapter_parameters(self, rank: int, targets: str) -> int:
        """Parameters of low-rank adapters on the layers whose full name fits `targets`: rank x (inputs + outputs)."""
        return sum(rank * sum(sides) for name, sides in self.linears.items() if re.fullmatch(targets, name))

    def adapted_parameters(self, targets: str) -> int:
        """Parameters of the layers that these adapters are put on."""
        return sum(math.prod(sides) for name, sides in self.linears.items() if re.fullmatch(targets, name))

    def adapted(self, targets: str, seen: bool) -> list[tuple[int, int]]:
        """Inputs and outputs of the layers that get an adapter, in the vision tower or outside of it."""
        fits = {name: sides for name, sides in self.linears.items() if re.fullmatch(targets, name)}
        return [sides for name, sides in fits.items() if _sees(name) == seen]


def read_config(path: str, sizes: Sequence[str] = ()) -> PreTrainedConfig:
    """The configuration of a checkpoint. Raises UserError where a folder has none, or the hub does not answer.

    `sizes` are those that could be planned for without it.
    """
    folder = Path(path)
    if known := published_as(path):
        return known
    instead = f"give --model_size ({', '.join(sizes)})" if sizes else ""
    if folder.is_dir() and not (folder / "config.json").is_file():
        whole = f"{path} holds no config.json; name the folder of a whole checkpoint"
        raise UserError(f"{whole}, or {instead}" if sizes else whole)
    try:
        return AutoConfig.from_pretrained(path)
    except (OSError, ValueError, KeyError) as error:
        if folder.is_dir():
            raise UserError(f"{path}/config.json can't be read ({first_line(error)})") from None
        local = "set model.policy.init_args.path to a local folder"
        raise UserError(
            f"{path} is no folder here and the hub can't be reached; {f'{local}, or {instead}' if sizes else local}"
        ) from None


def measure_shape(config: PreTrainedConfig) -> Shape:
    """Build the model of a configuration on the meta device and count it. Raises UserError where there is none."""
    try:
        with torch.device("meta"):
            return shape_of(AutoModelForImageTextToText.from_config(config))
    except (ValueError, AttributeError, TypeError) as error:
        raise UserError(f"plan can't read the shape of a {config.model_type} model ({error})") from None


def shape_of(model: Any) -> Shape:
    """The shape of a model, wherever it lies."""
    text, vision = model.config.get_text_config(), model.config.vision_config
    stacks = {name: layers for name, layers in model.named_modules() if isinstance(layers, nn.ModuleList)}
    seen = max((n for n in stacks if _sees(n)), key=lambda n: len(stacks[n]))
    spoken = max((n for n in stacks if n != seen), key=lambda n: len(stacks[n]))
    patch = vision.patch_size
    return Shape(
        language=_block(stacks[spoken], text),
        vision=_block(stacks[seen], vision),
        vocabulary=text.vocab_size,
        parameters=parameters_of(model),
        seeing=parameters_of(model.model) - parameters_of(model.model.language_model),
        patch=patch,
        patch_values=3 * patch**2 * getattr(vision, "temporal_patch_size", 1),
        merge=_merge(model.config),
        image_tokens=getattr(model.config, "mm_tokens_per_image", None),
        linears={
            n: (m.in_features, m.out_features) for n, m in model.named_modules() if isinstance(m, nn.Linear)
        },
    )  # fmt: skip


def parameters_of(module: nn.Module) -> int:
    """The number of values in a module's parameters, of which shared ones count once."""
    return sum(p.numel() for p in module.parameters())


def _sees(name: str) -> bool:
    """Whether a module lies in the vision tower, by its full name."""
    return "visi" in name or "visual" in name


def _merge(config: Any) -> int:
    """Patches on the side of an image token; some families say instead how many tokens any image becomes."""
    vision, tokens = config.vision_config, getattr(config, "mm_tokens_per_image", None)
    if tokens is None:
        return getattr(vision, "spatial_merge_size", 1)
    return round(vision.image_size / vision.patch_size / tokens**0.5)


def _block(layers: nn.ModuleList, config: Any) -> Block:
    width = config.hidden_size
    heads = getattr(config, "num_attention_heads", None) or config.num_heads
    head = getattr(config, "head_dim", None) or width // heads
    parameters = parameters_of(layers) // len(layers)
    return Block(
        layers=len(layers),
        width=width,
        heads=heads,
        attention=heads * head,
        key_value=(getattr(config, "num_key_value_heads", None) or heads) * head,
        mlp=_inner_width(config),
        gated=any(re.search(r"gate(_up)?_proj", name) for name, _ in layers[0].named_parameters()),
        parameters=parameters,
        active=parameters - _idle(layers, config),
    )


def _inner_width(config: Any) -> int:
    """Of the MLP, or of all experts together that a token passes."""
    if expert := getattr(config, "moe_intermediate_size", None):
        return config.num_experts_per_tok * expert + getattr(config, "shared_expert_intermediate_size", 0)
    return config.intermediate_size


def _idle(layers: nn.ModuleList, config: Any) -> int:
    """Parameters of a layer that a token does not pass: those of the experts that are not chosen for it."""
    if not (count := getattr(config, "num_experts", None)):
        return 0
    experts = sum(p.numel() for name, p in layers.named_parameters() if ".experts." in name) // len(layers)
    return experts * (count - config.num_experts_per_tok) // count
