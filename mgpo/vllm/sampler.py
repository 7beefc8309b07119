"""The sampler that asks vLLM: the same conversations as in process, with whole histories sent in every turn."""

import itertools
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.accelerators import cuda
from lightning.pytorch.utilities import rank_zero_info
from torch import Tensor
from torch.distributed.fsdp import FSDPModule
from torch.distributed.tensor import DTensor

from mgpo.errors import UserError
from mgpo.inference.saving import merged_weights, published, save_processors
from mgpo.policy.base import Policy
from mgpo.policy.families.qwen import QwenVL
from mgpo.policy.features import BESIDE, portions
from mgpo.rollout.episodes import Conversations, Job, Sampler
from mgpo.rollout.in_process import InProcessSampler, Sampling, tail_of
from mgpo.types import Pixels, Prompt, Reply, Stop, Trajectory
from mgpo.vllm.engine import LocalEngine, Settings
from mgpo.vllm.requests import Drawn, Engine, Request, place_images


class VLLMSampler:
    """The vLLM engine in this process, beside the trainer and on its device. It is started by the first rollouts.

    Ids and patches go in as the trainer has them, and ids come out; no text and no image is processed again. In place
    of patches go the features that the trainer's tower gives, where that is not trained. Weights, with adapters merged,
    are pushed before the first rollouts after every change. On a GPU the engine sleeps while the policy learns.

    Args:
        dtype: Type in which the engine computes, such as bfloat16; by default that of the policy's weights.
        max_model_len: Tokens of a conversation at most; by default what the checkpoint allows.
        options: Further arguments of `vllm.LLM`, such as gpu_memory_utilization, tensor_parallel_size or block_size.
    """

    exact = False

    def __init__(
        self, dtype: str | None = None, max_model_len: int | None = None, options: dict[str, Any] | None = None
    ) -> None:
        self.dtype, self.options = dtype, options or {}
        self.max_model_len: int | None = max_model_len or self.options.get("max_model_len")
        self.engine: Engine | None = None
        self.banned: frozenset[int] = frozenset()
        self.current = False  # whether the engine has the policy's weights as they are
        self.numbers = itertools.count()

    def open(self, policy: Policy, prompts: Sequence[Prompt], copies: int) -> Conversations:
        """Show each prompt to `copies` rows, under the policy's weights as they are."""
        return self.talk(self.push(policy), policy, prompts, copies)

    def talk(self, engine: Engine, policy: Policy, prompts: Sequence[Prompt], copies: int) -> "EngineConversations":
        """Conversations under the weights that the engine has."""
        seen = self.sees(served(policy))
        return EngineConversations(engine, served(policy), prompts, copies, self.numbers, self.banned, seen)

    def sees(self, policy: QwenVL) -> bool:
        """Whether the engine is given what the trainer's own tower sees, which an update needs anyway: where it is not
        trained, and whole."""
        return policy.seen.frozen and not isinstance(policy, FSDPModule)

    @torch.inference_mode(False)  # or what an evaluation has made could not be changed in training
    @torch.no_grad()
    def push(self, policy: Policy) -> Engine:
        """The engine, with the policy's weights as they are."""
        if self.engine is None:
            # once, for each look at the policy's own would wait for all that its device has been given to do
            self.banned = frozenset(served(policy).banned.nonzero().flatten().tolist())
            self.engine = self.start(served(policy))
        if not self.current:
            self.engine.load(weights_of(policy))
            self.current = True
        return self.engine

    def prepare(self, policy: Policy) -> None:
        """Push the policy's weights, if they have changed; all ranks must where they are sharded."""
        self.push(policy)

    def run(self, policy: Policy, job: Job) -> list[Trajectory]:
        """Have a step's rollouts played at once, under the weights as they are."""
        return job()

    def release(self) -> None:
        """The weights are about to change: sleep until the next `open` brings new ones."""
        if self.engine is not None and self.current:
            self.engine.sleep()
        self.current = False

    def close(self) -> None:
        """Shut the engine down; the next `open` starts another."""
        if self.engine is not None:
            self.engine.close()
        self.engine, self.current = None, False

    def start(self, policy: QwenVL) -> Engine:
        """An engine for this policy, without weights."""
        with tempfile.TemporaryDirectory() as folder:
            engine = LocalEngine(self.settings(policy, folder), policy.device.index)
        keep_workspaces()
        return engine

    def settings(self, policy: QwenVL, folder: str) -> Settings:
        """What an engine has to know, with configuration, tokenizer and processors in a folder."""
        policy.model.config.save_pretrained(folder)
        save_processors(policy, Path(folder))
        return Settings(
            folder=folder,
            dtype=self.dtype or str(policy.dtype).removeprefix("torch."),
            end_id=policy.chat.end_id,
            banned=tuple(policy.banned.nonzero().flatten().tolist()),
            options={"max_model_len": self.max_model_len, **self.options},
        )


def keep_workspaces() -> None:
    """Have Lightning leave the workspaces of cuBLAS, which it frees wherever a fit or a validation begins or ends.

    CUDA graphs know nothing but addresses: an engine's would go on writing into that memory, which by then may be the
    policy's weights (pytorch/pytorch#193402).
    """
    setattr(cuda, "_clear_cuda_memory", torch.cuda.empty_cache)  # noqa: B010, for it is not Lightning's to show


def where_installed(
    dtype: str | None = None, max_model_len: int | None = None, options: dict[str, Any] | None = None
) -> Sampler:
    """VLLMSampler where vLLM is installed; elsewhere rollouts in process, and a sentence that says so."""
    if is_installed():
        return VLLMSampler(dtype, max_model_len, options)
    rank_zero_info("vLLM is not installed, so rollouts are drawn in process; docs/vllm.md says how to install it.")
    return InProcessSampler()


def is_installed() -> bool:
    """Whether there is a vLLM; it is imported only when an engine starts."""
    return find_spec("vllm") is not None


def served(policy: Policy) -> QwenVL:
    """The policy, of a family whose patches the engine takes as they are. Raises UserError for others."""
    if not isinstance(policy, QwenVL):
        raise UserError(f"model.sampler: vLLM serves the Qwen families here, not {type(policy).__name__}; leave it out")
    return policy


def weights_of(policy: Any) -> Iterator[tuple[str, Tensor]]:
    """The plain model's weights by name as they are published, whole where they are sharded; all ranks must go through
    them."""
    for name, value in published(policy.model, merged_weights(policy.model)):
        yield name, value.full_tensor() if isinstance(value, DTensor) else value


class EngineConversations:
    """A batch of open conversations. The engine's prefix cache makes it cheap to send each from its beginning."""

    def __init__(
        self,
        engine: Engine,
        policy: QwenVL,
        prompts: Sequence[Prompt],
        copies: int,
        numbers: Iterator[int],
        banned: frozenset[int],
        seen: bool = False,
    ) -> None:
        self.engine, self.policy, self.numbers, self.banned, self.seen = engine, policy, numbers, banned, seen
        self.histories = [prompt for prompt in prompts for _ in range(copies)]
        self.named: dict[int, tuple[Pixels, str]] = {}  # holds the pixels, so that no other object takes their number
        self.cached: list[int] = []  # by row: tokens of the last history that were not passed again

    def extend(self, prompts: Sequence[Prompt]) -> None:
        """Add the next prompt of every row to its history."""
        self.histories = [_joined(history, p.ids, p.images) for history, p in zip(self.histories, prompts, strict=True)]

    def reply(
        self, seeds: Sequence[int], sampling: Sampling, stop_text: str | None = None
    ) -> Iterator[tuple[int, Reply]]:
        """Sample a reply in every row, until its end-of-turn token, the stop text, or the limit: (row, reply).

        `seeds` holds one seed a row: the same seed behind the same history gives the same reply.

        Raises:
            ValueError: If a history's placeholders don't match its images.
            RuntimeError: If the engine samples a banned token, or stops for no reason that is known here.
        """
        if self.seen:
            self._look()
        requests = [self._request(history, seed) for history, seed in zip(self.histories, seeds, strict=True)]
        self.cached = [0] * len(requests)
        for row, drawn in self.engine.sample(requests, sampling, stop_text):
            reply = self._reply(drawn, sampling, stop_text)
            self.histories[row] = _joined(self.histories[row], reply.ids)
            self.cached[row] = drawn.cached
            yield row, reply

    def take(self, replies: Sequence[Reply]) -> None:
        """Add these replies, a row each, to the histories, as if the engine had sampled them."""
        self.histories = [_joined(history, reply.ids) for history, reply in zip(self.histories, replies, strict=True)]

    def keep(self, rows: Sequence[int]) -> None:
        """Let go of all rows but these."""
        self.histories = [self.histories[i] for i in rows]

    def begin(self, prompts: Sequence[Prompt], rows: Sequence[int]) -> "EngineConversations":
        """New conversations, one a prompt, under the same weights; a row's history says nothing of them."""
        return EngineConversations(self.engine, self.policy, prompts, 1, self.numbers, self.banned, self.seen)

    @torch.no_grad()
    def _look(self) -> None:
        """Pass what is new through the trainer's tower, which keeps what it saw."""
        shown = (image for history in self.histories for image in history.images)
        new = [image for image in dict.fromkeys(shown) if image not in self.policy.seen.kept]
        for part in portions(new, BESIDE):
            self.policy.features(part)

    def _request(self, history: Prompt, seed: int) -> Request:
        images = place_images(history, self.policy.chat.image_id, self._tokens, self._name)
        if self.seen:
            images = (replace(image, features=self.policy.seen.kept[image.pixels]) for image in images)
        return Request(history.ids, tuple(images), seed)

    def _tokens(self, pixels: Pixels) -> int:
        return self.policy.expand(pixels).count(self.policy.image_token)

    def _name(self, pixels: Pixels) -> str:
        if id(pixels) not in self.named:
            self.named[id(pixels)] = (pixels, str(next(self.numbers)))
        return self.named[id(pixels)][1]

    def _reply(self, drawn: Drawn, sampling: Sampling, stop_text: str | None) -> Reply:
        if not self.banned.isdisjoint(drawn.ids):
            raise RuntimeError("the engine sampled a token that is banned")
        length, stop = reply_end(self.policy, drawn.ids, stop_text)
        if stop == "length" and length < sampling.max_new_tokens:
            raise RuntimeError(f"the engine stopped after {length} tokens, for no reason that is known here")
        return Reply(drawn.ids[:length], drawn.logprobs[:length], stop)


def reply_end(policy: QwenVL, ids: Sequence[int], stop_text: str | None) -> tuple[int, Stop]:
    """Where a reply ends and why, by the rule of the in-process sampler: behind the token that completes the text.

    An engine that decodes as it goes may hold back a text whose last character is incomplete, and stop later.
    """
    for count, token in enumerate(ids, 1):
        if token == policy.chat.end_id:
            return count, "end"
        if stop_text and stop_text[-1] in policy.token_texts[token]:
            tail = ids[max(0, count - tail_of(stop_text)) : count]
            if stop_text in policy.chat.decode(tail):
                return count, "marker"
    return len(ids), "length"


def _joined(history: Prompt, ids: tuple[int, ...], images: tuple[Pixels, ...] = ()) -> Prompt:
    return Prompt(history.ids + ids, history.images + images)
