"""Training whose weights, gradients and optimiser states are cut over devices (FSDP2)."""

from mgpo.distributed.strategy import FSDP2Strategy
from mgpo.distributed.units import clip_gradients, gathered, shard

__all__ = ["FSDP2Strategy", "clip_gradients", "gathered", "shard"]
