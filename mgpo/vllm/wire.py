"""Messages between two processes of one user: JSON and tensors, over a pair of sockets that nobody else can open.

A frame is the length of its head, that of its body, a head in JSON and a body in safetensors. Nothing is unpickled.
"""

import json
import socket
import struct
from collections.abc import Mapping
from typing import Any

import safetensors.torch
from torch import Tensor

LENGTHS = struct.Struct(">IQ")


def send(pipe: socket.socket, head: Mapping[str, Any], tensors: Mapping[str, Tensor] | None = None) -> None:
    """One frame. Tensors may be on a device and share memory; they arrive on the CPU, each with its own."""
    words = json.dumps(head).encode()
    copies = {name: t.detach().to("cpu", copy=True).contiguous() for name, t in (tensors or {}).items()}
    body = safetensors.torch.save(copies)
    pipe.sendall(LENGTHS.pack(len(words), len(body)) + words)
    pipe.sendall(body)


def receive(pipe: socket.socket) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """The next frame.

    Raises:
        EOFError: If the other side is gone.
    """
    words, body = LENGTHS.unpack(_exactly(pipe, LENGTHS.size))
    return json.loads(_exactly(pipe, words)), safetensors.torch.load(_exactly(pipe, body))


def _exactly(pipe: socket.socket, size: int) -> bytes:
    data = bytearray(size)
    view, got = memoryview(data), 0
    while got < size:
        count = pipe.recv_into(view[got:])
        if count == 0:
            raise EOFError("the other process has ended")
        got += count
    return bytes(data)
