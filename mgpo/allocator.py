"""Memory on hosts: what a step lets go of is kept for the next one."""

import ctypes
import sys

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
