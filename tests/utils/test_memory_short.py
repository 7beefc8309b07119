"""Where memory runs out, a sentence says of what, where, and what to do."""

import inspect
import os
import re
import signal

import numpy as np
import pytest
import torch

from mgpo.commands import execute as module
from mgpo.commands.execute import execute
from mgpo.data import Scenes, VQAData
from mgpo.errors import UserError
from mgpo.utils.memory_short import REMEDY, memory_short

CUDA = (
    "CUDA out of memory. Tried to allocate 2.32 GiB. GPU 0 has a total capacity of 79.11 GiB of which 1.06 GiB is "
    "free. Including non-PyTorch memory, this process has 78.04 GiB memory in use."
)


LINE = next(i for i, line in enumerate(inspect.getsource(module).splitlines(), 1) if "  run([command" in line)
PLACE = f"execute (execute.py, line {LINE})"  # the innermost of the package


def told_of(monkeypatch, fail):
    """What the command line says where this fails."""
    monkeypatch.setattr("mgpo.commands.execute.run", lambda args: fail())
    with pytest.raises(UserError) as raised:
        execute("fit", [])
    return str(raised.value)


def on_a_device():
    raise RuntimeError("in a unit") from torch.OutOfMemoryError(CUDA)


def test_of_a_device(monkeypatch):
    said = told_of(monkeypatch, on_a_device)
    assert said.startswith("the device's memory is used up (2.32 GiB were asked for); for a run `mgpo plan` ")


@pytest.mark.parametrize(
    ("fail", "size"),
    [
        (lambda: torch.empty(2**50), " (4503599.6 GB were asked for)"),
        (lambda: np.empty(2**50), ""),
        (lambda: [0] * 2**60, ""),
    ],
)
def test_of_the_machine(monkeypatch, fail, size):
    assert told_of(monkeypatch, fail) == f"this machine's memory is used up in {PLACE}{size}; {REMEDY}"


class Ended(Scenes):
    """Asked for a question, its process is ended as systems do."""

    def __getitem__(self, index):
        os.kill(os.getpid(), signal.SIGKILL)


def test_of_a_worker(monkeypatch):
    loader = VQAData(val=[Ended(2, split="val", side=64)], num_workers=1).val_dataloader()[0]
    said = told_of(monkeypatch, lambda: next(iter(loader)))
    assert re.match(
        r"a process that decodes pictures was ended( \(killed\))?, as systems do where memory is short; ", said
    )


@pytest.mark.parametrize(
    ("text", "how"),
    [
        (
            "DataLoader worker (pid 7) is killed by signal: Bus error. It is possible that dataloader's workers",
            " (bus error)",
        ),
        ("DataLoader worker (pid(s) 7, 8) exited unexpectedly", ""),
    ],
)
def test_of_what_workers_share(text, how):
    assert f"was ended{how}, as systems do" in str(memory_short(RuntimeError(text)))


@pytest.mark.parametrize(
    "text",
    [
        "CUDA error: out of memory\nCUDA kernel errors might be asynchronously reported",
        "CUDA Error: out of memory at /csrc/cumem_allocator.cpp:62",
        "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`",
    ],
)
def test_of_a_device_by_whichever_allocator(text):
    assert "the device's memory is used up; for a run" in str(memory_short(RuntimeError(text)))


def test_other_errors_are_no_matter_of_memory():
    assert memory_short(RuntimeError("CUDA error: device-side assert triggered")) is None
    error = RuntimeError("DataLoader worker (pid(s) 7) exited unexpectedly")
    error.__cause__ = RuntimeError("DataLoader worker (pid 7) is killed by signal: Segmentation fault. ")
    assert memory_short(error) is None


def test_what_was_handled_before_is_no_cause():
    error = KeyError("answer")
    error.__context__, error.__suppress_context__ = MemoryError(), True  # raised from None
    assert memory_short(error) is None
