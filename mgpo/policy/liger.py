"""What liger-kernel fuses on GPUs: norms, gates and rotary positions of layers, and a head with its log-probs.

Layers use it wherever it is installed and they are on a GPU; elsewhere they stay what the library made them.
"""

import re
import sys
from collections.abc import Callable
from importlib import import_module
from importlib.metadata import version
from importlib.util import find_spec
from types import MethodType
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mgpo.errors import UserError

WEIGHED = (0, 8, 2)  # the first version whose fused head weighs the gradient of each token by itself
NEVER = -1e4  # added to a banned logit: exp(-10,000) is zero, and no kernel meets an infinity
# What a norm adds to its weight, and when it rounds to a narrower type: before it multiplies with the weight, or after.
NORMS = {
    "Qwen2_5_VLRMSNorm": (0.0, "llama"),
    "Qwen3VLTextRMSNorm": (0.0, "llama"),
    "Qwen3VLMoeTextRMSNorm": (0.0, "llama"),
    "Qwen3_5RMSNorm": (1.0, "gemma"),
    "Qwen3_5MoeRMSNorm": (1.0, "gemma"),
    "Gemma3RMSNorm": (1.0, "gemma"),
}
GATES = {"SiLUActivation": ("swiglu", "LigerSiLUMulFunction"), "GELUTanh": ("geglu", "LigerGELUMulFunction")}
ROTATION, TOWER_ROTATION = "apply_rotary_pos_emb", "apply_rotary_pos_emb_vision"  # as families' modules call them
ALIGNED = 8  # values: products whose rows are no multiple of that take several times as long


def fuse_layers(model: nn.Module) -> None:
    """Have a model's layers compute by fused kernels on GPUs. Does nothing where liger-kernel is not installed."""
    if not is_installed():
        return
    for module in model.modules():
        if type(module).__name__ in NORMS:
            module.forward = MethodType(_on_gpus(_norm(*NORMS[type(module).__name__])), module)
        gate = GATES.get(type(getattr(module, "act_fn", None)).__name__)
        if gate and hasattr(module, "gate_proj"):
            module.forward = MethodType(_on_gpus(_gated(*gate)), module)
        if hasattr(module, "q_proj"):
            _fuse(sys.modules[type(module).__module__], ROTATION, _rotation)
        if hasattr(module, "qkv"):
            _fuse(sys.modules[type(module).__module__], TOWER_ROTATION, _tower_rotation)


def is_installed() -> bool:
    """Whether liger-kernel and what it needs are there."""
    return find_spec("liger_kernel") is not None and find_spec("triton") is not None


def fuses(x: Tensor) -> bool:
    """Whether a tensor lies where the fused kernels run: on a GPU."""
    return x.is_cuda


def _on_gpus(fused: Callable[..., Tensor]) -> Callable[..., Tensor]:
    def forward(module: Any, x: Tensor) -> Tensor:
        return fused(module, x) if fuses(x) else type(module).forward(module, x)

    return forward


def _kernel(module: str, name: str) -> Any:
    return getattr(import_module(f"liger_kernel.ops.{module}"), name)


def _norm(offset: float, rounds: str) -> Callable[..., Tensor]:
    kernel = _kernel("rms_norm", "LigerRMSNormFunction")

    def fused(norm: Any, x: Tensor) -> Tensor:
        eps = norm.variance_epsilon if hasattr(norm, "variance_epsilon") else norm.eps
        return kernel.apply(x, norm.weight, eps, offset, rounds, False)

    return fused


def _gated(module: str, name: str) -> Callable[..., Tensor]:
    kernel = _kernel(module, name)

    def fused(mlp: Any, x: Tensor) -> Tensor:
        gate, up, down = mlp.gate_proj, mlp.up_proj, mlp.down_proj
        room = -gate.weight.shape[0] % ALIGNED if type(gate) is type(up) is type(down) is nn.Linear else 0
        if not room:
            return down(kernel.apply(gate(x), up(x)))
        inner = kernel.apply(*(_wider(part, x, room) for part in (gate, up)))
        return F.linear(inner, F.pad(down.weight, (0, room)), down.bias)

    return fused


def _wider(layer: nn.Linear, x: Tensor, room: int) -> Tensor:
    """What a layer makes of x, and as many zeros behind it."""
    bias = None if layer.bias is None else F.pad(layer.bias, (0, room))
    return F.linear(x, F.pad(layer.weight, (0, 0, 0, room)), bias)


def _fuse(family: Any, name: str, make: Callable[..., Any]) -> None:
    """In the module of a family, once: its attention looks the function up there."""
    plain = getattr(family, name, None)
    if plain is not None and not hasattr(plain, "fused"):
        rotate = make(plain, _kernel("rope", "LigerRopeFunction"))
        rotate.fused = True
        setattr(family, name, rotate)


def _rotation(plain: Callable[..., Any], kernel: Any) -> Any:
    def rotate(q: Tensor, k: Tensor, cos: Tensor, sin: Tensor, unsqueeze_dim: int = 1) -> tuple[Tensor, Tensor]:
        whole = fuses(q) and unsqueeze_dim == 1 and cos.shape[-1] == q.shape[-1]
        if not whole:
            return plain(q, k, cos, sin, unsqueeze_dim)
        heads = (_steady(x.transpose(1, 2)).transpose(1, 2) for x in (q, k))
        return kernel.apply(*heads, _steady(cos), _steady(sin))

    return rotate


def _steady(x: Tensor) -> Tensor:
    """With the strides by which the kernel finds rows (N, T, …): of a dimension of one token torch may give any."""
    return x.flatten(0, 1).unflatten(0, x.shape[:2])


def _tower_rotation(plain: Callable[..., Any], kernel: Any) -> Any:
    """Of patches (T, H, E), computed in float32 as there."""

    def rotate(q: Tensor, k: Tensor, cos: Tensor, sin: Tensor) -> tuple[Tensor, Tensor]:
        if not fuses(q):
            return plain(q, k, cos, sin)
        turned = kernel.apply(*(x.transpose(0, 1)[None] for x in (q, k)), cos.float()[None], sin.float()[None])
        return tuple(x[0].transpose(0, 1) for x in turned)

    return rotate


def load_kernel() -> Any:
    """Raises UserError where liger-kernel is not installed, or one whose gradients are wrong."""
    try:
        found = version("liger-kernel")
        if tuple(map(int, re.findall(r"\d+", found)[:3])) < WEIGHED:
            raise UserError(
                f"policy.fused_head: liger-kernel {found} gives every token's gradient the first one's weight; "
                "pip install -U liger-kernel"
            )
        return _kernel("fused_linear_cross_entropy", "LigerFusedLinearCrossEntropyFunction")
    except ImportError:
        raise UserError("policy.fused_head needs liger-kernel, which runs on GPUs: pip install liger-kernel") from None


def fused_logprobs(
    hidden_MD: Tensor, weight_VD: Tensor, targets_M: Tensor, banned: Tensor, temperature: float
) -> Tensor:
    """Log-probs (M,) of tokens in float32, from the head's states, without logits; gradients reach states and head.

    Args:
        hidden_MD: States from which the tokens are drawn.
        weight_VD: The head.
        targets_M: The tokens' ids.
        banned: (V,): ids that may not be sampled.
        temperature: Divides the logits.
    """
    bias_V = torch.zeros_like(banned, dtype=weight_VD.dtype).masked_fill(banned, NEVER)
    states = (hidden_MD / temperature).to(weight_VD.dtype)
    losses = load_kernel().apply(states, weight_VD, targets_M, bias_V, None, -100, 0.0, 0.0, "none")
    return -losses[0].float()
