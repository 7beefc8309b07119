"""What processes tell each other besides gradients, and which one this is; without torch until they do."""

import os
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from torch import Tensor

T = TypeVar("T")


def local_rank() -> int:
    """The number of this process on its node, as torchrun and Lightning set it, or else SLURM."""
    return int(os.environ.get("LOCAL_RANK", os.environ.get("SLURM_LOCALID", "0")))


def share_objects(value: T, world_size: int) -> list[T]:
    """The value of every rank, on every rank; all must call."""
    if world_size == 1:
        return [value]
    from torch.distributed import all_gather_object

    everywhere: list[T] = [value] * world_size
    all_gather_object(everywhere, value)
    return everywhere


def mean_over_ranks(value: "Tensor", world_size: int) -> "Tensor":
    """The mean of a tensor that every rank has, of the same shape; all ranks must call."""
    from torch import stack

    return stack([other.to(value) for other in share_objects(value.cpu(), world_size)]).mean(0)
