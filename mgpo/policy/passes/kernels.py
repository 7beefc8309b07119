"""The fused kernels that attention over pieces is made of, forward and backward, and which one takes what.

- CPU: the flash kernel for CPUs, once a piece.
- GPU, half precision: FlashAttention 2 (arXiv 2307.08691) with cumulative lengths, one call for all pieces; heads
  share keys natively.
- GPU, float32, heads wider than 256, GPUs older than Ampere: the memory-efficient kernel (arXiv 2112.05682), once a
  piece.

Shapes: H heads, K key-value heads, T tokens, Q queries, S keys of a piece, E width of a head.
"""

from collections.abc import Callable
from functools import cache
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from mgpo.errors import UserError
from mgpo.policy.passes.packing import Looks

aten: Any = torch.ops.aten
FLASH_WIDTH = 256  # of a head, at most
AMPERE = (8, 0)  # the first generation of NVIDIA's that has it
ALIGNED = 8  # kernels on GPUs take heads whose width is a multiple of this
LSE_BLOCK = 32  # in which the memory-efficient kernel lays out its log-sum-exps

Gradients = tuple[Tensor, Tensor, Tensor]


class Kernel(NamedTuple):
    """What attends.

    `forward(q, k, v, looks, scale)` returns output (1, H, Q, E) and log-sum-exp (1, H, Q) of the looks' queries, laid
    one after the other. `backward(sums, grad, q, k, v, out, lse, looks, scale)` adds to the gradients of q, k and v,
    given output and log-sum-exp of all queries, and the gradient of that output.
    """

    forward: Callable[..., tuple[Tensor, Tensor]]
    backward: Callable[..., None]


def kernel_of(q_1HTE: Tensor) -> Kernel:
    """The kernel for such queries, by their device, type and width."""
    if q_1HTE.device.type == "cpu":
        return CPU
    half = q_1HTE.dtype.itemsize == 2 and q_1HTE.shape[-1] <= FLASH_WIDTH
    return FLASH if half and _has_flash(q_1HTE.device) else EFFICIENT


@cache
def _has_flash(device: torch.device) -> bool:
    if device.type != "cuda" or torch.version.hip is not None:
        return True
    return torch.cuda.get_device_capability(device) >= AMPERE


def check_kernel(kind: str) -> None:
    """Before torch 2.9 the CPU kernel's backward pass wrote past its memory where heads share keys.

    Raises:
        UserError: On a CPU with such a torch, and on devices that are neither CPUs nor GPUs of NVIDIA or AMD.
    """
    if kind == "cpu" and torch.__version__ < "2.9":
        raise UserError(f"training on a CPU needs torch 2.9 or newer, not {torch.__version__}; install a newer one")
    if kind not in ("cpu", "cuda"):
        raise UserError(
            f"training runs on CPUs and on GPUs of NVIDIA or AMD, not on {kind}: set trainer.accelerator cpu"
        )


def aligned(*states: Tensor) -> list[Tensor]:
    """Heads as wide as kernels on GPUs take them: zeros behind change no product."""
    missing = -states[0].shape[-1] % ALIGNED
    return [F.pad(x, (0, missing)) for x in states] if missing and states[0].device.type != "cpu" else list(states)


def _flash_forward(q: Tensor, k: Tensor, v: Tensor, looks: Looks, scale: float) -> tuple[Tensor, Tensor]:
    out, lse, *_ = aten._flash_attention_forward(
        _rows(q)[looks.query_index], _rows(k)[looks.key_index], _rows(v)[looks.key_index], *_ends(looks), 0.0,
        looks.causal, False, scale=scale,
    )  # fmt: skip
    return out.transpose(0, 1)[None], lse[None]


def _flash_backward(
    sums: Gradients, grad: Tensor, q: Tensor, k: Tensor, v: Tensor, out: Tensor, lse: Tensor, looks: Looks, scale: float
) -> None:
    at, keys = looks.query_index, looks.key_index
    random = torch.zeros(2, dtype=torch.uint64, device=q.device), torch.zeros(0, device=q.device)  # nothing is dropped
    parts = aten._flash_attention_backward(
        _rows(grad)[at], _rows(q)[at], _rows(k)[keys], _rows(v)[keys], _rows(out)[at], lse[0][:, at].contiguous(),
        *_ends(looks), 0.0, looks.causal, *random, scale=scale,
    )  # fmt: skip
    for whole, index, part in zip(sums, (at, keys, keys), parts):
        if isinstance(index, slice):
            whole[0, :, index] += part.transpose(0, 1)
        else:
            whole[0].index_add_(1, index, part.transpose(0, 1))


def _rows(x_1HTE: Tensor) -> Tensor:
    """(T, H, E), a view."""
    return x_1HTE[0].transpose(0, 1)


def _ends(looks: Looks) -> tuple[Tensor, Tensor, int, int]:
    return looks.query_ends, looks.key_ends, looks.most_queries, looks.most_keys


def _each(forward: Callable[..., tuple[Tensor, Tensor]], backward: Callable[..., Gradients]) -> Kernel:
    """One that is called for every piece."""

    def run(q: Tensor, k: Tensor, v: Tensor, looks: Looks, scale: float) -> tuple[Tensor, Tensor]:
        pairs = list(zip(looks.queries, looks.keys))
        seen = [forward(q[:, :, at], k[:, :, keys], v[:, :, keys], looks.causal, scale) for at, keys in pairs]
        out_1QHE = torch.cat([out.transpose(1, 2) for out, _ in seen], 1)  # laid out as linear layers read it
        return out_1QHE.transpose(1, 2), torch.cat([lse for _, lse in seen], 2)

    def learn(
        sums: Gradients, grad: Tensor, q: Tensor, k: Tensor, v: Tensor, out: Tensor, lse: Tensor, looks: Looks,
        scale: float,
    ) -> None:  # fmt: skip
        for at, keys in zip(looks.queries, looks.keys):
            piece = grad[:, :, at], q[:, :, at], k[:, :, keys], v[:, :, keys], out[:, :, at], lse[:, :, at]
            for whole, span, part in zip(sums, (at, keys, keys), backward(*piece, looks.causal, scale)):
                whole[:, :, span] += part

    return Kernel(run, learn)


def _cpu_forward(q: Tensor, k: Tensor, v: Tensor, causal: bool, scale: float) -> tuple[Tensor, Tensor]:
    return aten._scaled_dot_product_flash_attention_for_cpu(q, k, v, 0.0, causal, scale=scale)


def _cpu_backward(
    grad: Tensor, q: Tensor, k: Tensor, v: Tensor, out: Tensor, lse: Tensor, causal: bool, scale: float
) -> Gradients:
    return aten._scaled_dot_product_flash_attention_for_cpu_backward(grad, q, k, v, out, lse, 0.0, causal, scale=scale)


def _efficient_forward(q: Tensor, k: Tensor, v: Tensor, causal: bool, scale: float) -> tuple[Tensor, Tensor]:
    k, v = _for_all_heads(q, k), _for_all_heads(q, v)
    out, lse, *_ = aten._scaled_dot_product_efficient_attention(q, k, v, None, True, 0.0, causal, scale=scale)
    return out, lse[..., : q.shape[2]]


def _efficient_backward(
    grad: Tensor, q: Tensor, k: Tensor, v: Tensor, out: Tensor, lse: Tensor, causal: bool, scale: float
) -> Gradients:
    random = torch.zeros((), dtype=torch.long, device=q.device)  # nothing is dropped
    lse = F.pad(lse, (0, -lse.shape[-1] % LSE_BLOCK), value=torch.inf)
    dq, dk, dv, _ = aten._scaled_dot_product_efficient_attention_backward(
        grad, q, _for_all_heads(q, k), _for_all_heads(q, v), None, out, lse, random, random, 0.0,
        [True, True, True, False], causal, scale=scale,
    )  # fmt: skip
    return dq, dk.unflatten(1, (k.shape[1], -1)).sum(2), dv.unflatten(1, (v.shape[1], -1)).sum(2)


def _for_all_heads(q: Tensor, x_1KSE: Tensor) -> Tensor:
    return x_1KSE.repeat_interleave(q.shape[1] // x_1KSE.shape[1], 1)


FLASH = Kernel(_flash_forward, _flash_backward)
CPU = _each(_cpu_forward, _cpu_backward)
EFFICIENT = _each(_efficient_forward, _efficient_backward)
