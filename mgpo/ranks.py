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
