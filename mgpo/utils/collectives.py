"""What processes tell each other besides gradients."""

from typing import TypeVar

import torch

T = TypeVar("T")


def share_objects(value: T, world_size: int) -> list[T]:
    """The value of every rank, on every rank; all must call."""
    if world_size == 1:
        return [value]
    everywhere: list[T] = [value] * world_size
    torch.distributed.all_gather_object(everywhere, value)
    return everywhere


def mean_over_ranks(value: torch.Tensor, world_size: int) -> torch.Tensor:
    """The mean of a tensor that every rank has, of the same shape; all ranks must call."""
    return torch.stack([other.to(value) for other in share_objects(value.cpu(), world_size)]).mean(0)
