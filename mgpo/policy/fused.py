"""Log-probs by liger-kernel's fused head and loss, for GPUs: logits never leave the kernel."""

from typing import Any

import torch
from torch import Tensor

from mgpo.errors import UserError

NEVER = -1e4  # added to a banned logit: exp(-10,000) is zero, and no kernel meets an infinity


def load_kernel() -> Any:
    """Raises UserError where liger-kernel is not installed."""
    try:
        from liger_kernel.ops.fused_linear_cross_entropy import (  # pyright: ignore[reportMissingImports]
            LigerFusedLinearCrossEntropyFunction,
        )
    except ImportError:
        raise UserError("policy.fused_head needs liger-kernel, which runs on GPUs: pip install 'mgpo[gpu]'") from None
    return LigerFusedLinearCrossEntropyFunction


def fused_logprobs(
    hidden_MD: Tensor, weight_VD: Tensor, targets_M: Tensor, banned: Tensor, temperature: float
) -> Tensor:
    """(M,) in float32; gradients reach states and head."""
    bias_V = torch.zeros_like(banned, dtype=weight_VD.dtype).masked_fill(banned, NEVER)
    states = (hidden_MD / temperature).to(weight_VD.dtype)
    losses = load_kernel().apply(states, weight_VD, targets_M, bias_V, None, -100, 0.0, 0.0, "none")
    return -losses[0].float()
