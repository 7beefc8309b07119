"""The vLLM engine in a process of its own: `python -m mgpo.vllm.server FD`, started by `mgpo.vllm.remote` alone."""

import signal
import socket
import sys
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from mgpo.rollout.in_process import Sampling
from mgpo.types import Pixels
from mgpo.vllm.engine import LocalEngine, Settings
from mgpo.vllm.requests import Request, Shown
from mgpo.vllm.wire import receive, send


def serve(pipe: socket.socket) -> None:
    """Answer one question after the other until the other side is gone; a mistake is told, and ends nothing."""
    engine: LocalEngine | None = None
    while True:
        try:
            head, tensors = receive(pipe)
        except EOFError:
            return
        try:
            if head["do"] == "start":
                engine = LocalEngine(Settings(**head["settings"]))
            answer = _answer(engine, head, tensors, pipe) if engine is not None else {}
        except Exception as error:
            answer = {"error": f"{type(error).__name__}: {error}"}
        send(pipe, answer)


def _answer(engine: LocalEngine, head: dict[str, Any], tensors: dict[str, Tensor], pipe: socket.socket) -> Any:
    if head["do"] == "load":
        weights = _weights(pipe)
        try:
            engine.load(weights)
        finally:
            list(weights)  # what was not taken is not the next question
    if head["do"] == "sample":
        requests = [_request(asked, tensors) for asked in head["requests"]]
        drawn = engine.sample(requests, Sampling(**head["sampling"]), head["stop_text"])
        return {"drawn": [(row, one.ids, one.logprobs, one.cached) for row, one in drawn]}
    return {}


def _weights(pipe: socket.socket) -> Iterator[tuple[str, Tensor]]:
    """As they arrive, so that no more than a piece is held twice."""
    while True:
        head, tensors = receive(pipe)
        if not head["more"]:
            return
        yield from tensors.items()


def _request(asked: dict[str, Any], sent: dict[str, Tensor]) -> Request:
    images = []
    for name, seen, grid, *run in asked["images"]:
        patches, features = (torch.empty(0), sent[name]) if seen else (sent[name], None)
        images.append(Shown(name, Pixels(patches, tuple(grid)), *run, features=features))
    return Request(tuple(asked["ids"]), tuple(images), asked["seed"])


if __name__ == "__main__":
    for number in (signal.SIGUSR1, signal.SIGTERM, signal.SIGINT):  # sent to all processes; they are the trainer's
        signal.signal(number, signal.SIG_IGN)
    serve(socket.socket(fileno=int(sys.argv[1])))
