"""The vLLM engine in a process of its own, with its own devices: this side of it."""

import os
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import contextmanager, suppress
from dataclasses import asdict
from typing import Any

from torch import Tensor

from mgpo.errors import UserError
from mgpo.policy.base import Policy
from mgpo.policy.families.qwen import QwenVL
from mgpo.rollout.episodes import Conversations, Job
from mgpo.rollout.in_process import Sampling
from mgpo.types import Prompt, Trajectory
from mgpo.utils.collectives import local_rank
from mgpo.vllm.engine import Settings
from mgpo.vllm.requests import Drawn, Engine, Request
from mgpo.vllm.sampler import VLLMSampler
from mgpo.vllm.wire import pieces, receive, send

LEAVING = 10.0  # seconds that an engine takes to end


class ServedVLLMSampler(VLLMSampler):
    """The vLLM engine in a process of its own, on devices that the trainer does not use; it never sleeps.

    The process is started by the first rollouts and ends with this one. Weights go to it through a pair of sockets,
    so both are on one machine; under several trainers each has its own.

    Args:
        ahead: Play a step's rollouts while the policy learns from those of the step before. They are then one step old
            when they are learnt from, which the objective's correction weighs, and those of the last step are not.
        devices: Those of the engine, as CUDA_VISIBLE_DEVICES takes them, one entry for each trainer on this machine,
            such as ["4", "5"] or ["4,5", "6,7"]; empty leaves them as they are.
        dtype: As for VLLMSampler.
        max_model_len: As for VLLMSampler.
        options: As for VLLMSampler.
    """

    def __init__(
        self,
        ahead: bool = False,
        devices: Sequence[str] = (),
        dtype: str | None = None,
        max_model_len: int | None = None,
        options: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(dtype, max_model_len, options)
        self.ahead, self.devices = ahead, devices
        self.threads = ThreadPoolExecutor(1, "rollouts")
        self.playing: Future[list[Trajectory]] | None = None
        self.inside = threading.local()

    def open(self, policy: Policy, prompts: Sequence[Prompt], copies: int) -> Conversations:
        """As for VLLMSampler; while a step's rollouts are being played everybody else waits."""
        if getattr(self.inside, "job", False):  # its weights were pushed before, and are changing now
            assert self.engine is not None
            return self.talk(self.engine, policy, prompts, copies)
        self.prepare(policy)
        return super().open(policy, prompts, copies)

    def prepare(self, policy: Policy) -> None:
        """As for VLLMSampler."""
        if self.playing is not None:
            wait([self.playing])
        super().prepare(policy)

    def run(self, policy: Policy, job: Job) -> list[Trajectory]:
        """Have a step's rollouts played; with `ahead` those of the step before are returned, at first none."""
        if not self.ahead:
            return job()
        played = self.playing.result() if self.playing is not None else []
        self.push(policy)
        self.playing = self.threads.submit(self._inside, job)
        return played

    def forget(self) -> None:
        """Let go of rollouts that were played for a fit which has ended."""
        if self.playing is not None:
            wait([self.playing])
        self.playing = None

    def close(self) -> None:
        """End the process; the next `open` starts another."""
        self.forget()
        super().close()

    def _inside(self, job: Job) -> list[Trajectory]:
        self.inside.job = True
        return job()

    def sees(self, policy: QwenVL) -> bool:
        """As for VLLMSampler; but rollouts that are played ahead leave the trainer's device to the update."""
        return not self.ahead and super().sees(policy)

    def start(self, policy: QwenVL) -> Engine:
        """An engine for this policy in a new process, without weights."""
        rank = local_rank()
        if self.devices and rank >= len(self.devices):
            raise UserError(f"model.sampler.devices has {len(self.devices)} entries, but there is a trainer {rank}")
        with tempfile.TemporaryDirectory() as folder:
            return ServedEngine(self.settings(policy, folder), self.devices[rank] if self.devices else None)


class ServedEngine:
    """`LocalEngine` in another process.

    Raises:
        UserError: If it does not start.
    """

    broken = False  # after a question that was not answered to its end, of which the rest would answer the next

    def __init__(self, settings: Settings, devices: str | None) -> None:
        self.pipe, theirs = socket.socketpair()
        with theirs:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "mgpo.vllm.server", str(theirs.fileno())],
                pass_fds=[theirs.fileno()],
                env=_environment(devices),
                start_new_session=True,  # a terminal's Ctrl-C is the trainer's, which ends its step first
            )
        try:
            self._ask({"do": "start", "settings": asdict(settings)})
        except RuntimeError as error:
            self.close()
            raise UserError(f"model.sampler: the engine's process did not start ({error})") from None

    def sample(
        self, requests: Sequence[Request], sampling: Sampling, stop_text: str | None
    ) -> Iterator[tuple[int, Drawn]]:
        """Sample replies behind whole histories, and give (row, reply) once all have ended.

        Each image goes over once, however many histories show it.
        """
        images = {image.name: image.sent for request in requests for image in request.images}
        asked = [
            {
                "ids": request.ids,
                "seed": request.seed,
                "images": [(i.name, i.features is not None, i.pixels.grid, i.offset, i.length) for i in request.images],
            }
            for request in requests
        ]
        answer = self._ask(
            {"do": "sample", "requests": asked, "sampling": asdict(sampling), "stop_text": stop_text}, images
        )
        yield from ((row, Drawn(tuple(ids), tuple(logprobs), cached)) for row, ids, logprobs, cached in answer["drawn"])

    def load(self, weights: Iterable[tuple[str, Tensor]]) -> None:
        """Hand over weights by name."""
        with self._whole():
            send(self.pipe, {"do": "load"})
            for piece in pieces(weights):
                send(self.pipe, {"more": True}, piece)
        self._ask({"more": False})

    def sleep(self) -> None:
        """Does nothing: the engine shares no device with the trainer."""

    def close(self) -> None:
        """End the process, which goes when nobody is there to ask it; children of this one may hold the pipe too."""
        with suppress(OSError):  # it is gone already
            self.pipe.shutdown(socket.SHUT_RDWR)
        self.pipe.close()
        try:
            self.process.wait(LEAVING)
        except subprocess.TimeoutExpired:  # in the middle of something
            self.process.kill()
            self.process.wait()

    def _ask(self, head: dict[str, Any], tensors: dict[str, Tensor] | None = None) -> dict[str, Any]:
        with self._whole():
            send(self.pipe, head, tensors)
            answer, _ = receive(self.pipe)
        if "error" in answer:
            raise RuntimeError(f"the engine says: {answer['error']}")
        return answer

    @contextmanager
    def _whole(self) -> Iterator[None]:
        """Within it a question is asked or answered; where it is broken off, the engine is ended."""
        try:
            yield
        except BaseException as error:
            self.broken = True
            self.process.kill()
            self.close()
            if isinstance(error, EOFError | OSError):
                raise RuntimeError("the engine's process has ended; what it said last stands above") from None
            raise


def _environment(devices: str | None) -> dict[str, str]:
    """That of this process, without what makes the trainers a group."""
    group = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT", "NODE_RANK", "GROUP_RANK")
    own = {name: value for name, value in os.environ.items() if name not in group}
    return own if devices is None else {**own, "CUDA_VISIBLE_DEVICES": devices}
