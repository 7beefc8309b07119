"""Messages between two processes of one user: JSON and tensors, over a pair of sockets that nobody else can open.

A frame is the length of its head, that of its body, a head in JSON and a body in safetensors. Nothing is unpickled.
"""

import json
import socket
import struct
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import safetensors.torch
from torch import Tensor

LENGTHS = struct.Struct(">IQ")
PIECE = 1 << 28  # bytes of weights in one frame or file


def send(pipe: socket.socket, head: Mapping[str, Any], tensors: Mapping[str, Tensor] | None = None) -> None:
    """One frame."""
    words, body = json.dumps(head).encode(), packed(tensors or {})
    pipe.sendall(LENGTHS.pack(len(words), len(body)) + words)
    pipe.sendall(body)


def receive(pipe: socket.socket) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """The next frame.

    Raises:
        EOFError: If the other side is gone.
    """
    words, body = LENGTHS.unpack(_exactly(pipe, LENGTHS.size))
    return json.loads(_exactly(pipe, words)), safetensors.torch.load(_exactly(pipe, body))


def pieces(weights: Iterable[tuple[str, Tensor]]) -> Iterator[dict[str, Tensor]]:
    """Weights by name, `PIECE` bytes or so at a time, with tied ones under each of their names; none is ever cut."""
    piece: dict[str, Tensor] = {}
    size = 0
    for name, value in weights:
        piece[name] = value
        size += value.numel() * value.element_size()
        if size >= PIECE:
            yield piece
            piece, size = {}, 0
    yield piece


def packed(tensors: Mapping[str, Tensor]) -> bytes:
    """Tensors in safetensors; they may be on a device and share memory, and arrive on the CPU, each with its own."""
    copies = {name: t.detach().to("cpu", copy=True).contiguous() for name, t in tensors.items()}
    return safetensors.torch.save(copies)


def _exactly(pipe: socket.socket, size: int) -> bytes:
    data = bytearray(size)
    view, got = memoryview(data), 0
    while got < size:
        count = pipe.recv_into(view[got:])
        if count == 0:
            raise EOFError("the other process has ended")
        got += count
    return bytes(data)
