"""Low-rank adapters (LoRA, arXiv 2106.09685); the policy without them is its own reference."""

import copy
import re
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import MethodType
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from torch.nn import functional as F

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
SAME_INPUT = (("q_proj", "k_proj", "v_proj"), ("gate_proj", "up_proj"), ("in_proj_qkv", "in_proj_z"))


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

    In bfloat16 most updates of a usual learning rate would be rounded away. Products are computed in the model's type.
    Raises UserError without peft, or where no layer fits.
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
    """The settings of adapters in peft's form.

    Raises:
        UserError: If peft is not installed.
    """
    try:
        from peft import LoraConfig
    except ImportError:
        raise UserError("model.policy.lora needs peft: pip install peft") from None
    return LoraConfig(r=lora.rank, lora_alpha=lora.alpha, lora_dropout=0.0, target_modules=lora.pattern)


def in_float32(model: Any) -> None:
    """Put all that is trained into float32, whatever the type of the rest; adapters are computed in that type."""
    from peft.tuners.lora import Linear

    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.float()
    adapted: Any = [layer for layer in model.modules() if isinstance(layer, Linear)]
    for layer in adapted:
        layer.resting, layer.forward, layer.readers = None, MethodType(_adapted, layer), Readers([layer])
    for parent in model.modules():
        for names in SAME_INPUT:
            readers = Readers([child for name in names if (child := getattr(parent, name, None)) in adapted])
            for layer in readers.layers:
                layer.readers = readers


def _adapted(layer: Any, x: Tensor, *inputs: Any, **options: Any) -> Tensor:
    """peft's pass, which casts what comes in to the adapters' type; to a narrower base they are cast themselves."""
    base = layer.get_base_layer()
    if layer.resting is MERGED:
        return base(x, *inputs, **options)
    if layer.disable_adapters or base.weight.dtype == torch.float32:
        return type(layer).forward(layer, x, *inputs, **options)
    result = base(x.flatten(0, -2), *inputs, **options)
    for low, up, scaling in layer.readers.down(layer, x):
        low = low.to(result.dtype)  # a head's is wider
        result = result.addmm_(low, up.to(low).T, alpha=scaling)  # in place: no copy of what the base says
    return result.unflatten(0, x.shape[:-1])


class Readers:
    """Layers that are given the same input: what their adapters make of it is one product, which reads it once."""

    def __init__(self, layers: list[Any]) -> None:
        self.layers = layers
        self.x: Tensor | None = None  # what was read last, until all have had their part of that product
        self.parts: dict[int, list[tuple[Tensor, Tensor, float]]] = {}

    def __deepcopy__(self, memo: dict) -> "Readers":
        memo[id(self)] = copied = Readers([])  # before its layers, which name it; nothing of a pass that was broken off
        copied.layers = copy.deepcopy(self.layers, memo)
        return copied

    def down(self, layer: Any, x: Tensor) -> list[tuple[Tensor, Tensor, float]]:
        """Of each of a layer's adapters x in its few dimensions, the way up from there, and the scaling."""
        if self.x is not x or id(layer) not in self.parts:
            adapters = [
                (other, other.scaling[name], down, up)
                for other in self.layers
                for name, (down, up) in (other.resting or _cast(other)).items()
            ]
            if not adapters:
                return []
            downs = [down for _, _, down, _ in adapters]
            with torch.autocast(x.device.type, enabled=False):  # it would join none of another type than its own
                joined = torch.cat(downs)
            lows = F.linear(x.flatten(0, -2), joined).split([len(down) for down in downs], -1)
            self.x, self.parts = x, {id(other): [] for other in self.layers}
            for (other, scaling, _, up), low in zip(adapters, lows):
                self.parts[id(other)].append((low, up, scaling))
        found = self.parts.pop(id(layer))
        if not self.parts:
            self.x = None
        return found


def _cast(layer: Any) -> dict[str, tuple[Tensor, Tensor]]:
    """The active adapters in the type of the base."""
    dtype = layer.get_base_layer().weight.dtype
    names = [name for name in layer.active_adapters if name in layer.lora_A]
    return {name: (layer.lora_A[name].weight.to(dtype), layer.lora_B[name].weight.to(dtype)) for name in names}


MERGED: Any = object()  # what a layer rests as whose adapters are part of its weight


@contextmanager
@torch.no_grad()
def at_rest(model: Any) -> Iterator[None]:
    """Within it adapters cost less: nothing learns, so they are merged, or cast once. After it weights are as before.

    They are merged where products are exact in float32 alone. A bfloat16 weight takes up no change of less than a 512th
    of itself: of an adapter's first update at a rate of 1e-4 nine tenths would be rounded away, of ten updates a third.
    Rollouts would not come from the policy that learns from them, and to score them anew costs more than
    adapters beside the weights do. The same holds for whatever rounds float32 weights on their way.
    """
    layers = [m for m in model.modules() if hasattr(m, "resting") and not m.disable_adapters and m.resting is None]
    used = Counter(id(p) for _, p in model.named_parameters(remove_duplicate=False))
    originals: list[tuple[Tensor, Tensor]] = []
    try:
        for layer in layers:
            weight = layer.get_base_layer().weight
            if isinstance(weight, DTensor):  # a part of it
                continue
            if weight.dtype != torch.float32:
                layer.resting = _cast(layer)
            elif _exact(weight) and used[id(weight)] == 1:
                originals.append((weight.data, weight.data.clone()))
                for name in _cast(layer):
                    weight.data += layer.get_delta_weight(name)
                layer.resting = MERGED
        yield
    finally:
        for weight, original in originals:
            weight.copy_(original)
        for layer in layers:
            layer.resting = None


def _exact(weight: Tensor) -> bool:
    """Whether products with it are those of float32."""
    rounded = torch.is_autocast_enabled(weight.device.type) or torch.get_float32_matmul_precision() != "highest"
    return not rounded


@contextmanager
def without_lora(model: Any) -> Iterator[None]:
    """Within it the model is the base, whatever the adapters had learnt before."""
    assert all(getattr(layer, "resting", None) is None for layer in model.modules()), "adapters are merged"
    layers = [layer for layer in model.modules() if hasattr(layer, "_disable_adapters")]
    # peft would freeze them, too, and FSDP take it from the first pass that nothing is trained
    for layer in layers:
        layer._disable_adapters = True
    try:
        yield
    finally:
        for layer in layers:
            layer._disable_adapters = False
