"""Memory on hosts: what a step lets go of is kept for the next one, and what goes to a GPU need not be waited for."""

import ctypes
import sys
from collections.abc import Sequence

import torch
from torch import Tensor

TRIM_THRESHOLD, MMAP_THRESHOLD = -1, -3  # names of mallopt(3)
LARGEST = 2**31 - 1  # bytes


def keep_freed_memory() -> None:
    """Have glibc hand freed memory out again instead of giving it back to the system.

    A pass over a small model asks for the same hundreds of megabytes again and again; each time the system would have
    to map and clear every page, which takes a seventh of a step. The peak stays as it is. Does nothing elsewhere.
    """
    if sys.platform == "linux" and hasattr(libc := ctypes.CDLL(None), "mallopt"):
        libc.mallopt(TRIM_THRESHOLD, LARGEST)
        libc.mallopt(MMAP_THRESHOLD, 2**30)


def moved(x: Tensor, device: torch.device) -> Tensor:
    """A tensor on a device; to a GPU by way of pinned memory, so that the copy overlaps what is computed there."""
    if device.type != "cuda" or x.device.type != "cpu":
        return x.to(device)
    return x.pin_memory().to(device, non_blocking=True)


def joined(parts: Sequence[Tensor], device: torch.device, dtype: torch.dtype) -> Tensor:
    """Tensors of a host, one below the other, on a device and in that type; copied once on the host."""
    rows = sum(map(len, parts))
    whole = torch.empty(rows, *parts[0].shape[1:], dtype=dtype, pin_memory=device.type == "cuda")
    start = 0
    for part in parts:
        whole[start : (start := start + len(part))].copy_(part)
    return whole.to(device, non_blocking=True)
