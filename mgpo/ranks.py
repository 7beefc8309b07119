"""What processes tell each other besides gradients, and which strategies they may have."""

from typing import TypeVar

import torch

from mgpo.errors import UserError

T = TypeVar("T")
SHARDED = "FSDP2Strategy"


def check_strategy(name: str) -> None:
    """Raises UserError for the name of a strategy that cuts weights over devices and knows nothing of policies."""
    other = any(kind in name.lower().replace("_", "") for kind in ("fsdp", "modelparallel", "deepspeed"))
    if other and name.rsplit(".", 1)[-1] != SHARDED:
        raise UserError(f"trainer.strategy is {name}; sharded training here is --config configs/fsdp.yaml")


def check_precision(name: str) -> None:
    """Raises UserError for a trainer.precision under which a policy would hardly learn, or not at all."""
    if name.startswith("bf16-true"):
        raise UserError(
            "trainer.precision bf16-true rounds most updates away; take bf16-mixed, or 32-true with "
            "model.policy.init_args.dtype bfloat16 and adapters (policy.lora), or to evaluate only that dtype"
        )
    if name.startswith(("16", "transformer-engine")):
        raise UserError(f"trainer.precision is {name}; float16 overflows here, so take bf16-mixed, or 32-true")


def share_objects(value: T, world_size: int) -> list[T]:
    """The value of every rank, on every rank; all must call."""
    if world_size == 1:
        return [value]
    everywhere: list[T] = [value] * world_size
    torch.distributed.all_gather_object(everywhere, value)
    return everywhere


def mean_over_ranks(value: torch.Tensor, world_size: int) -> torch.Tensor:
    """Of a tensor that every rank has; all must call."""
    return torch.stack([other.to(value) for other in share_objects(value.cpu(), world_size)]).mean(0)
