"""The vLLM engine in this process. Its modules are imported when the engine starts, not before."""
# pyright: reportMissingImports=false, reportAttributeAccessIssue=false

import gc
import itertools
import os
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor

from mgpo.errors import UserError
from mgpo.rollout.in_process import Sampling
from mgpo.utils.collectives import local_rank
from mgpo.vllm.forms import drawn_of, input_of, params_of
from mgpo.vllm.requests import Drawn, Request
from mgpo.vllm.wire import packed, pieces

SHOWN = 300  # characters of what vLLM says
MOST_BANNED = 1024  # ids; its sampler on GPUs takes no more
# Set before vLLM is imported, unless they are set already: the engine in this very process, and quiet.
ENVIRONMENT = {
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
    "VLLM_LOGGING_LEVEL": "ERROR",
    "VLLM_NO_USAGE_STATS": "1",
}


@dataclass(frozen=True)
class Settings:
    """What an engine needs to start; the folder holds configuration, tokenizer and processors, and no weights."""

    folder: str
    dtype: str
    end_id: int
    banned: tuple[int, ...]
    options: dict[str, Any] = field(default_factory=dict)


class LocalEngine:
    """`vllm.LLM` with ids and patches going in and ids coming out. It starts without weights.

    Args:
        settings: What it has to know.
        device: The number of the trainer's GPU, beside which it starts.

    Raises:
        UserError: If vLLM is not installed, or can't start on that GPU or with that memory.
    """

    broken = False

    def __init__(self, settings: Settings, device: int | None = None) -> None:
        for name, value in ENVIRONMENT.items():
            os.environ.setdefault(name, value)
        try:
            import vllm
        except ImportError as error:
            raise UserError(
                f"model.sampler needs vLLM ({error}); install it as docs/vllm.md says, or leave it out"
            ) from None
        self.grouped = torch.distributed.is_initialized()  # by the trainer, whose groups are no engine's to end
        several = self.grouped and torch.distributed.get_world_size() > 1
        if several and any(settings.options.get(f"{kind}_parallel_size", 1) > 1 for kind in ("tensor", "pipeline")):
            raise UserError(
                "model.sampler: an engine of several GPUs beside several trainers needs mgpo.vllm.ServedVLLMSampler, "
                "with its devices; or leave tensor_parallel_size out"
            )
        if several:  # vLLM finds the others by what torchrun would have set
            os.environ.setdefault("RANK", str(torch.distributed.get_rank()))
        elif device:
            raise UserError(
                "model.sampler: vLLM starts on the first GPU that a process sees, and the trainer is on number "
                f"{device}; hide the others with CUDA_VISIBLE_DEVICES, and take --trainer.devices 1"
            )
        gpu = torch.cuda.is_available()
        if gpu and len(settings.banned) > MOST_BANNED:
            raise UserError(
                f"model.sampler: vLLM can keep {MOST_BANNED:,} ids from being sampled, and this policy bans "
                f"{len(settings.banned):,}; leave model.sampler out"
            )
        options = {
            "enable_sleep_mode": gpu,
            "enforce_eager": not gpu,  # a CPU's kernels would be compiled for minutes
            "kv_cache_memory_bytes": None if gpu else 1 << 30,  # or it would take nearly all of a CPU's
            # A prompt that is passed in parts turns its seed's generator back, which a CPU's can't.
            "enable_chunked_prefill": None if gpu else False,
            "distributed_executor_backend": "external_launcher" if several else None,
            **settings.options,
        }
        if gpu:
            torch.cuda.empty_cache()  # as before waking
        with _placed(local_rank() if device is None else device):
            try:
                self.llm = vllm.LLM(
                    model=settings.folder,
                    dtype=settings.dtype,
                    load_format="dummy",  # the first push fills it
                    generation_config="vllm",  # no penalties of the checkpoint's
                    logprobs_mode="processed_logprobs",  # of the distribution that is sampled
                    enable_prefix_caching=True,
                    limit_mm_per_prompt={"video": 0},
                    mm_processor_cache_gb=0,  # nothing is processed,
                    mm_device_do_normalize=False,  # for patches come as the vision tower takes them
                    **options,
                )
            except torch.OutOfMemoryError:
                raise
            except Exception as error:  # of options, of memory that is short, of a second engine, of any worker
                why = " ".join((str(error) or type(error).__name__).split())[:SHOWN]
                raise UserError(f"model.sampler: vLLM does not start ({why}); see model.sampler.options") from error
        self.settings, self.numbers = settings, itertools.count()
        self.workers: int = self.llm.llm_engine.vllm_config.parallel_config.world_size
        if self.grouped:
            self.llm.llm_engine.engine_core._finalizer.detach()  # which would end them wherever it is collected
        self.asked: set[str] = set()  # requests that have not ended
        # Minus infinity, where the constructor's converter would stop at -100.
        self.bias = dict.fromkeys(settings.banned, float("-inf"))

    def sample(
        self, requests: Sequence[Request], sampling: Sampling, stop_text: str | None
    ) -> Iterator[tuple[int, Drawn]]:
        """Sample replies behind whole histories, and give (row, reply) of each as it ends.

        A stop text's token is kept whole. With `top_p` the log-probs are those of the likeliest tokens alone.

        Raises:
            RuntimeError: If the engine has seen other ids than it was given.
        """
        engine, kind = self.llm.llm_engine, "cuda" if torch.cuda.is_available() else "cpu"
        self._forget()  # those of a reply that nobody takes to its end
        order: dict[str, int] = {}
        try:
            for row, request in enumerate(requests):
                name = str(next(self.numbers))
                engine.add_request(
                    name,
                    input_of(request),
                    params_of(request.seed, sampling, stop_text, self.settings.end_id, self.bias),
                )
                self.asked.add(name)
                order[name] = row
            while engine.has_unfinished_requests():
                with torch.autocast(kind, enabled=False):  # the trainer's; the engine has types of its own
                    outputs = engine.step()
                for output in outputs:
                    if output.finished:
                        self.asked.discard(output.request_id)
                        row = order[output.request_id]
                        yield row, drawn_of(requests[row], output)
        except BaseException:
            self._forget()
            raise

    def _forget(self) -> None:
        self.llm.llm_engine.abort_request(list(self.asked))
        self.asked.clear()

    def load(self, weights: Iterable[tuple[str, Tensor]]) -> None:
        """Wake up and take these weights; what was computed under others is forgotten.

        Raises:
            RuntimeError: If the engine would go on with what was computed under others.
        """
        self._wake("weights")
        if self.workers == 1:
            self.llm.collective_rpc("reload_weights", kwargs={"weights_iterator": iter(weights)})
        else:  # in processes of their own, each of which takes its part of all
            with tempfile.TemporaryDirectory() as folder:
                for number, piece in enumerate(pieces(weights)):
                    (Path(folder) / f"{number:06d}").write_bytes(packed(piece))
                self.llm.collective_rpc(read_weights, args=(folder,))
        self.llm.collective_rpc(empty_leftovers)
        self._wake("kv_cache")
        if not self.llm.reset_prefix_cache():
            raise RuntimeError("the engine keeps what it has computed under other weights")
        self.llm.llm_engine.reset_encoder_cache()

    def sleep(self) -> None:
        """Give weights and cache of a GPU back; on a CPU there is no such thing."""
        self._forget()  # it would end them without saying so
        if torch.cuda.is_available():
            with _young_garbage():
                self.llm.sleep(level=2)

    def close(self) -> None:
        """Shut down; a process holds one engine at a time."""
        core = self.llm.llm_engine.engine_core
        if self.grouped:
            core.engine_core.model_executor.shutdown()
        else:
            core.shutdown()
        del self.llm
        gc.collect()  # its memory is wanted

    def _wake(self, part: str) -> None:
        """The engine asks the driver for its memory, which has none as long as the trainer's allocator keeps what
        updates have let go of."""
        if torch.cuda.is_available() and self.llm.llm_engine.is_sleeping():
            torch.cuda.empty_cache()
            with _young_garbage():
                self.llm.wake_up(tags=[part])


def read_weights(worker: Any, folder: str) -> None:
    """Have a worker take the weights in the files of a folder."""
    files = sorted(Path(folder).iterdir())
    worker.reload_weights(
        weights_iterator=(weight for file in files for weight in safetensors.torch.load_file(file).items())
    )


@torch.inference_mode()  # as they may have been made
def empty_leftovers(worker: Any) -> None:
    """Empty what is neither weight nor buffer, so that nobody brings it back from sleep, and has to be sound where no
    token is: what Qwen3-VL adds to its first layers, the positions that graphs read, and their embeddings."""
    state = getattr(worker.model_runner, "model_state", None)  # of a GPU's
    rotary, encoder = getattr(state, "rope_state", None), getattr(state, "encoder_runner", None)
    parts = [getattr(rotary, "positions", None), getattr(encoder, "inputs_embeds", None)]
    for part in (*parts, *(getattr(worker.get_model(), "deepstack_input_embeds", None) or ())):
        if part is not None:
            part.zero_()


@contextmanager
def _young_garbage() -> Iterator[None]:
    """Within it vLLM, which collects garbage whenever it sleeps or wakes, passes over what is old: a whole collection
    takes half a second where a trainer is."""
    gc.collect(1)
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()  # or what is garbage by then would stay for ever


@contextmanager
def _placed(device: int) -> Iterator[None]:
    """Within it vLLM, which takes a process's number on its node for that of its GPU, finds the GPU."""
    before = os.environ.get("LOCAL_RANK")
    os.environ["LOCAL_RANK"] = str(device)
    try:
        yield
    finally:
        if before is None:
            del os.environ["LOCAL_RANK"]
        else:
            os.environ["LOCAL_RANK"] = before
