"""Logits in float32, of weights that are not: products are summed there anyway, and only what is kept was rounded.

In bfloat16 a logit of 20 is known to an eighth, which is more than most updates move it.

Shapes: M tokens, D width, V vocabulary.
"""

from types import MethodType
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

WIDE_PRODUCTS = torch.__version__ >= "2.8"  # on GPUs: narrow factors, wide product


def widen(head: nn.Linear) -> None:
    """Have a head return (…, V) in float32; under autocast of factors in its type."""
    head.forward = MethodType(_logits, head)


def _logits(head: nn.Linear, hidden_MD: Tensor) -> Tensor:
    kind, weight_VD = hidden_MD.device.type, head.weight
    if torch.is_autocast_enabled(kind):
        dtype = torch.get_autocast_dtype(kind)
        hidden_MD, weight_VD = hidden_MD.to(dtype), weight_VD.to(dtype)
    if weight_VD.dtype.itemsize >= 4:
        return F.linear(hidden_MD, weight_VD).float()
    with torch.autocast(kind, enabled=False):
        return _Product.apply(hidden_MD.flatten(0, -2), weight_VD).unflatten(0, hidden_MD.shape[:-1])


class _Product(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, hidden_MD: Tensor, weight_VD: Tensor) -> Tensor:
        ctx.save_for_backward(hidden_MD, weight_VD)
        if hidden_MD.is_cuda and WIDE_PRODUCTS:
            return torch.mm(hidden_MD, weight_VD.T, out_dtype=torch.float32)
        return hidden_MD.float() @ weight_VD.float().T

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_MV: Tensor) -> tuple[Tensor | None, Tensor | None]:
        hidden_MD, weight_VD = ctx.saved_tensors
        grad_MV = grad_MV.to(weight_VD.dtype)
        states, weights = ctx.needs_input_grad
        return grad_MV @ weight_VD if states else None, grad_MV.T @ hidden_MD if weights else None
