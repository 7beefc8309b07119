"""Memory that ran out, of whichever kind, told in one sentence."""

import re
import traceback
from pathlib import Path

import torch

from mgpo.errors import UserError, chain_of

WORKER = re.compile(r"DataLoader worker \(pid\S* [\d, ]+\) (?:is killed by signal: ([\w ]+)|exited unexpectedly)")
HOST = re.compile(r"DefaultCPUAllocator: .*?tried to allocate (\d+) bytes", re.DOTALL)
# As other allocators of a device, and its libraries, say that there is none left.
UNNAMED = re.compile(r"CUDA (?:driver )?error: out of memory|CUBLAS_STATUS_ALLOC_FAILED", re.IGNORECASE)
DEVICE = re.compile(r"Tried to allocate ([\d.]+ \w+)")
SIGNALS = {"Killed", "Bus error"}  # of a system without memory, and of one without shared memory
REMEDY = "for a run `mgpo plan` says what fits; other commands take a smaller --batch_size"
PACKAGE = str(Path(__file__).parents[1])


def memory_short(error: BaseException) -> UserError | None:
    """What was short of memory, where, and what to do; None for an error of another kind."""
    causes = list(chain_of(error))
    for cause in causes:
        host = HOST.search(str(cause))
        unnamed = isinstance(cause, RuntimeError) and UNNAMED.search(str(cause))
        if unnamed or isinstance(cause, torch.OutOfMemoryError):
            asked = "".join(f" ({size} were asked for)" for size in DEVICE.findall(str(cause)))
            return UserError(f"the device's memory is used up{_place(cause)}{asked}; {REMEDY}")
        if host or isinstance(cause, MemoryError):
            asked = f" ({int(host[1]) / 1e9:.1f} GB were asked for)" if host else ""
            return UserError(f"this machine's memory is used up{_place(cause)}{asked}; {REMEDY}")
    lost = [found for cause in causes if (found := WORKER.search(str(cause)))]
    signals = {found[1] for found in lost if found[1]}
    if not lost or signals - SIGNALS:
        return None
    how = "".join(f" ({name.lower()})" for name in signals)  # not always known
    return UserError(
        f"a process that decodes pictures was ended{how}, as systems do where memory is short; lower data.num_workers "
        "or data.batch_size, or give more memory, in containers shared memory too (docker run --ipc=host or --shm-size)"
    )


def _place(error: BaseException) -> str:
    """The innermost line of this package."""
    own = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename.startswith(PACKAGE)]
    return f" in {own[-1].name} ({Path(own[-1].filename).name}, line {own[-1].lineno})" if own else ""
