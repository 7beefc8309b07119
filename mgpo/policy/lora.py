"""Low-rank adapters (LoRA, arXiv 2106.09685); the policy without them is its own reference."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from torch import nn

from mgpo.errors import UserError

# The linear layers of decoder layers and vision blocks, as the families name them: of attention, of gated delta nets
# (not their gates, as narrow as there are heads), of feed-forward parts. Experts of a mixture are no layers.
LANGUAGE = (
    r".*language_model\.layers\..*\."
    r"(q_proj|k_proj|v_proj|o_proj|in_proj_qkv|in_proj_z|out_proj|gate_proj|up_proj|down_proj)"
)
VISION = (
    r".*(visual|vision_tower)\..*(blocks|layers)\..*\."
    r"(qkv|q_proj|k_proj|v_proj|proj|out_proj|gate_proj|up_proj|down_proj|linear_fc1|linear_fc2|fc1|fc2)"
)


@dataclass(frozen=True)
class Lora:
    """Which low-rank adapters are trained, in place of all weights. They have no dropout.

    Args:
        rank: Of each adapter.
        alpha: Adapters are scaled by alpha / rank.
        targets: Regular expression on the full names of the layers that get one; by default the linear layers of
            every decoder layer. The experts of a mixture get none.
        vision: The linear layers of the vision tower's blocks get one too.
    """

    rank: int = 16
    alpha: int = 32
    targets: str = LANGUAGE
    vision: bool = False

    @property
    def pattern(self) -> str:
        """Regular expression on the full names of all layers that get one."""
        return f"({self.targets})|({VISION})" if self.vision else self.targets


def add_lora(model: Any, lora: Lora) -> None:
    """Freeze the model and put fresh adapters into it, in float32 whatever the model's type is.

    In bfloat16 most updates of a usual learning rate would be rounded away. Raises UserError without peft, or where no
    layer fits.
    """
    layers(model, lora)
    model.add_adapter(lora_config(lora))
    in_float32(model)


def layers(model: Any, lora: Lora) -> set[str]:
    """The names of those that get an adapter.

    Raises UserError where there are none, or where one's adapter would be lost: on a weight that another layer shares,
    and on what is no linear layer and no embedding, whose weight a model may use without calling it.
    """
    try:
        found = {name: module for name, module in model.named_modules() if re.fullmatch(lora.pattern, name)}
    except re.error as error:
        raise UserError(f"model.policy.lora.targets {lora.pattern!r} is no regular expression ({error})") from None
    if not found:
        raise UserError(f"model.policy.lora: no layer fits targets {lora.pattern!r}")
    owners: dict[int, list[str]] = {}
    for name, weight in model.named_parameters(remove_duplicate=False):
        owners.setdefault(id(weight), []).append(name)
    for name, module in found.items():
        if not isinstance(module, nn.Linear | nn.Embedding):
            kind = type(module).__name__
            raise UserError(f"model.policy.lora.targets names {name}, a {kind}; only linear layers can have adapters")
        if others := [other for other in owners[id(module.weight)] if other != f"{name}.weight"]:
            raise UserError(
                f"model.policy.lora.targets names {name}, which shares its weight with {others[0]}: an adapter on one "
                "would be lost when they are saved as one; leave it out"
            )
    return set(found)


def lora_config(lora: Lora) -> Any:
    """For peft. Raises UserError where it is not installed."""
    try:
        from peft import LoraConfig
    except ImportError:
        raise UserError("model.policy.lora needs peft; install it with pip install 'mgpo[lora]'") from None
    return LoraConfig(r=lora.rank, lora_alpha=lora.alpha, lora_dropout=0.0, target_modules=lora.pattern)


def in_float32(model: Any) -> None:
    """What is trained, whatever the type of the rest."""
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.float()


@contextmanager
def without_lora(model: Any) -> Iterator[None]:
    """Within it the model is the base, whatever the adapters had learnt before."""
    model.disable_adapters()
    try:
        yield
    finally:
        model.enable_adapters()
