"""Policies: model families behind one interface, in training passes and while they sample."""

from typing import TYPE_CHECKING

from mgpo.utils.on_demand import lazy

if TYPE_CHECKING:
    from mgpo.policy.base import Policy as Policy
    from mgpo.policy.families.gemma3 import Gemma3 as Gemma3
    from mgpo.policy.families.qwen import QwenVL as QwenVL
    from mgpo.policy.families.qwen2_5_vl import Qwen25VL as Qwen25VL
    from mgpo.policy.families.qwen3_5 import Qwen35 as Qwen35
    from mgpo.policy.families.qwen3_vl import Qwen3VL as Qwen3VL
    from mgpo.policy.lora import Lora as Lora
    from mgpo.policy.pretrained import Pretrained as Pretrained

__all__ = ["Gemma3", "Lora", "Policy", "Pretrained", "Qwen3VL", "Qwen25VL", "Qwen35", "QwenVL"]
__getattr__, __dir__ = lazy(
    __name__,
    {
        "base": ("Policy",),
        "families.gemma3": ("Gemma3",),
        "families.qwen": ("QwenVL",),
        "families.qwen2_5_vl": ("Qwen25VL",),
        "families.qwen3_5": ("Qwen35",),
        "families.qwen3_vl": ("Qwen3VL",),
        "lora": ("Lora",),
        "pretrained": ("Pretrained",),
    },
)
