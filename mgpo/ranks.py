"""What processes tell each other besides gradients, and what they can't share yet."""

from typing import TypeVar

import torch

from mgpo.errors import UserError

T = TypeVar("T")


def check_strategy(name: str) -> None:
    """Raises UserError for the name of a strategy that cuts weights over devices: no model here does so."""
    if any(kind in name.lower().replace("_", "") for kind in ("fsdp", "modelparallel")):
        raise UserError(
            f"trainer.strategy is {name}, but sharded training isn't supported yet; take ddp, and for models that "
            "don't fit a device adapters, as configs/qwen2_5_vl_7b_lora.yaml does"
        )


def share_objects(value: T, world_size: int) -> list[T]:
    """The value of every rank, on every rank; all must call."""
    if world_size == 1:
        return [value]
    everywhere: list[T] = [value] * world_size
    torch.distributed.all_gather_object(everywhere, value)
    return everywhere
