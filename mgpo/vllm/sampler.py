"""The sampler that asks vLLM: the same conversations as in process, with whole histories sent in every turn."""

import gc
import itertools
import tempfile
import weakref
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.accelerators import cuda
from lightning.pytorch.utilities import rank_zero_info
from lightning.pytorch.utilities.seed import isolate_rng
from torch import Tensor
from torch.distributed.fsdp import FSDPModule
from torch.distributed.tensor import DTensor

from mgpo.errors import UserError
from mgpo.inference.saving import merged_weights, published, save_processors
from mgpo.policy.base import Policy
from mgpo.policy.families.qwen import QwenVL
from mgpo.rollout.episodes import Conversations, Job, Sampler
from mgpo.rollout.in_process import InProcessSampler
from mgpo.types import Prompt, Trajectory
from mgpo.vllm.conversations import EngineConversations
from mgpo.vllm.engine import LocalEngine, Settings
from mgpo.vllm.requests import Engine


class VLLMSampler:
    """The vLLM engine in this process, beside the trainer and on its device. It is started by the first rollouts.

    Ids and patches go in as the trainer has them, and ids come out; no text and no image is processed again. In place
    of patches go the features that the trainer's tower gives, where that is not trained. Weights, with adapters merged,
    are pushed before the first rollouts after every change. On a GPU the engine sleeps while the policy learns. Changes
    by a fused optimiser can't be seen: behind its step a loop of one's own calls `release`.

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
        self.pushed: tuple[weakref.ref[Policy], int] | None = None  # the policy whose weights it has, and their version
        self.awake = False
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
        if self.engine is not None and self.engine.broken:
            self.close()
        policy = served(policy)
        with torch.autocast(policy.device.type, enabled=False):  # the trainer's; the engine has types of its own
            return self._pushed(policy)

    def _pushed(self, policy: QwenVL) -> Engine:
        if self.engine is None:
            self.engine = self.start(policy)
        if self.pushed is None or self.pushed[0]() is not policy or self.pushed[1] != version_of(policy):
            # once, for each look at the policy's own would wait for all that its device has been given to do
            self.banned = frozenset(policy.banned.nonzero().flatten().tolist())
            self.pushed, self.awake = None, True
            self.engine.load(weights_of(policy))
            self.pushed = weakref.ref(policy), version_of(policy)
        return self.engine

    def prepare(self, policy: Policy) -> None:
        """Push the policy's weights, if they have changed; all ranks must where they are sharded."""
        self.push(policy)

    def run(self, policy: Policy, job: Job) -> list[Trajectory]:
        """Have a step's rollouts played at once, under the weights as they are."""
        return job()

    def release(self) -> None:
        """The weights are about to change: sleep until the next `open` brings new ones."""
        if self.engine is not None and self.awake:
            self.engine.sleep()
        self.pushed, self.awake = None, False

    def close(self) -> None:
        """Shut the engine down; the next `open` starts another."""
        if self.engine is not None:
            self.engine.close()
        self.engine, self.pushed, self.awake = None, None, False

    def start(self, policy: QwenVL) -> Engine:
        """An engine for this policy, without weights."""
        with tempfile.TemporaryDirectory() as folder, process_as_it_was():
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


def version_of(policy: Policy) -> int:
    """A number that is another one once weights have been changed in place; always 0 of shards.

    Training, which alone changes those, says so by `release`.
    """
    if isinstance(policy, FSDPModule):
        return 0
    return sum(parameter._version for parameter in policy.parameters() if not parameter.is_inference())


@contextmanager
def process_as_it_was() -> Iterator[None]:
    """Within it an engine starts, which sets threads, precision and seeds of its process to its own liking.

    It also has Python's collector pass over all that is there by then, so that no policy would ever be freed.
    """
    threads, precision, frozen = torch.get_num_threads(), torch.get_float32_matmul_precision(), gc.get_freeze_count()
    try:
        with isolate_rng():
            yield
    finally:
        torch.set_num_threads(threads)
        torch.set_float32_matmul_precision(precision)
        if not frozen:
            gc.unfreeze()


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
