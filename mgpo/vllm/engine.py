"""The vLLM engine in this process. Its modules are imported when the engine starts, not before."""
# pyright: reportMissingImports=false, reportAttributeAccessIssue=false

import itertools
import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from mgpo.errors import UserError
from mgpo.rollout.in_process import Sampling
from mgpo.vllm.requests import Drawn, Request, Shown

SHOWN = 300  # characters of what vLLM says
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
        several = torch.distributed.is_initialized() and torch.distributed.get_world_size() > 1
        if several:  # vLLM finds the others by what torchrun would have set
            os.environ.setdefault("RANK", str(torch.distributed.get_rank()))
        elif device:
            raise UserError(
                "model.sampler: vLLM starts on the first GPU that a process sees, and the trainer is on number "
                f"{device}; hide the others with CUDA_VISIBLE_DEVICES, and take --trainer.devices 1"
            )
        gpu = torch.cuda.is_available()
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
            except ValueError as error:  # of options, and of memory that is short
                why = " ".join(str(error).split())[:SHOWN]
                raise UserError(f"model.sampler: vLLM does not start ({why}); see model.sampler.options") from None
        self.settings, self.numbers = settings, itertools.count()
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
                engine.add_request(name, _input(request), self._params(request.seed, sampling, stop_text))
                self.asked.add(name)
                order[name] = row
            while engine.has_unfinished_requests():
                with torch.autocast(kind, enabled=False):  # the trainer's; the engine has types of its own
                    outputs = engine.step()
                for output in outputs:
                    if output.finished:
                        self.asked.discard(output.request_id)
                        row = order[output.request_id]
                        yield row, _drawn(requests[row], output)
        except BaseException:
            self._forget()
            raise

    def _forget(self) -> None:
        self.llm.llm_engine.abort_request(list(self.asked))
        self.asked.clear()

    def load(self, weights: Iterable[tuple[str, Tensor]]) -> None:
        """Wake up and take these weights; what was computed under others is forgotten."""
        self._wake("weights")
        self.llm.collective_rpc("reload_weights", kwargs={"weights_iterator": iter(weights)})
        self.llm.collective_rpc(empty_deepstack)
        self._wake("kv_cache")
        self.llm.reset_prefix_cache()
        self.llm.llm_engine.reset_encoder_cache()

    def sleep(self) -> None:
        """Give weights and cache of a GPU back; on a CPU there is no such thing."""
        self._forget()  # it would end them without saying so
        if torch.cuda.is_available():
            self.llm.sleep(level=2)

    def close(self) -> None:
        """Shut down; a process holds one engine at a time."""
        self.llm.llm_engine.engine_core.shutdown()

    def _wake(self, part: str) -> None:
        """The engine asks the driver for its memory, which has none as long as the trainer's allocator keeps what
        updates have let go of."""
        if torch.cuda.is_available() and self.llm.llm_engine.is_sleeping():
            torch.cuda.empty_cache()
            self.llm.wake_up(tags=[part])

    def _params(self, seed: int, sampling: Sampling, stop_text: str | None) -> Any:
        from vllm import SamplingParams
        from vllm.sampling_params import RequestOutputKind

        return SamplingParams(
            max_tokens=sampling.max_new_tokens,
            temperature=sampling.temperature,
            top_p=sampling.top_p,
            seed=seed,
            stop=[stop_text] if stop_text else [],
            stop_token_ids=[self.settings.end_id],
            ignore_eos=True,  # but for the end of the turn, which stands above
            logit_bias=self.bias,
            logprobs=0,  # the sampled token's own
            skip_special_tokens=False,
            output_kind=RequestOutputKind.FINAL_ONLY,
        )


def empty_deepstack(worker: Any) -> None:
    """Empty what Qwen3-VL adds to its first layers, which is neither weight nor buffer: nobody brings it back from
    sleep, and where no picture is it has to be zero."""
    for added in getattr(worker.get_model(), "deepstack_input_embeds", None) or ():
        added.zero_()


def local_rank() -> int:
    """The number of this process on its node, as torchrun and Lightning set it, or else SLURM."""
    return int(os.environ.get("LOCAL_RANK", os.environ.get("SLURM_LOCALID", "0")))


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


def _input(request: Request) -> Any:
    from vllm.inputs import mm_input, tokens_input
    from vllm.multimodal.inputs import MultiModalKwargsItems, PlaceholderRange

    ids = list(request.ids)
    if not request.images:
        return tokens_input(ids)
    return mm_input(
        ids,
        MultiModalKwargsItems({"image": [_item(image) for image in request.images]}),
        {"image": [image.name for image in request.images]},
        {"image": [PlaceholderRange(image.offset, image.length) for image in request.images]},
    )


def _item(image: Shown) -> Any:
    """Patches or features, as the Qwen families' own processors in vLLM lay them out."""
    from vllm.multimodal.inputs import MultiModalFieldConfig, MultiModalKwargsItems

    name = "pixel_values" if image.features is None else "image_embeds"
    fields = {
        name: MultiModalFieldConfig.flat_from_sizes("image", torch.tensor([len(image.sent)])),
        "image_grid_thw": MultiModalFieldConfig.batched("image", keep_on_cpu=True),
    }
    data: Any = {name: image.sent, "image_grid_thw": torch.tensor([image.pixels.grid])}
    return MultiModalKwargsItems.from_hf_inputs(data, fields)["image"][0]


def _drawn(request: Request, output: Any) -> Drawn:
    if tuple(output.prompt_token_ids) != request.ids:
        raise RuntimeError("the engine has seen other ids than those it was given")
    (reply,) = output.outputs
    ids = tuple(reply.token_ids)
    return Drawn(ids, tuple(step[i].logprob for i, step in zip(ids, reply.logprobs)), output.num_cached_tokens or 0)
