"""Requests in vLLM's own forms, and what it gives in ours."""
# pyright: reportMissingImports=false, reportAttributeAccessIssue=false

from typing import Any

import torch

from mgpo.rollout.in_process import Sampling
from mgpo.vllm.requests import Drawn, Request, Shown


def params_of(seed: int, sampling: Sampling, stop_text: str | None, end_id: int, bias: dict[int, float]) -> Any:
    """How a reply is drawn, and where it ends."""
    from vllm import SamplingParams
    from vllm.sampling_params import RequestOutputKind

    return SamplingParams(
        max_tokens=sampling.max_new_tokens,
        temperature=sampling.temperature,
        top_p=sampling.top_p,
        seed=seed,
        stop=[stop_text] if stop_text else [],
        stop_token_ids=[end_id],
        ignore_eos=True,  # but for the end of the turn, which stands above
        logit_bias=bias,
        logprobs=0,  # the sampled token's own
        skip_special_tokens=False,
        output_kind=RequestOutputKind.FINAL_ONLY,
    )


def input_of(request: Request) -> Any:
    """A conversation with its pictures, of which nothing is left to be processed."""
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


def drawn_of(request: Request, output: Any) -> Drawn:
    """A reply that has ended. Raises RuntimeError where other ids stood before it than were given."""
    if tuple(output.prompt_token_ids) != request.ids:
        raise RuntimeError("the engine has seen other ids than those it was given")
    (reply,) = output.outputs
    ids = tuple(reply.token_ids)
    return Drawn(ids, tuple(step[i].logprob for i, step in zip(ids, reply.logprobs)), output.num_cached_tokens or 0)
