"""What an engine goes through in a run, with stand-ins for vLLM: pushing, sleeping, waking, several steps."""

import logging
from itertools import pairwise
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

import mgpo
from mgpo.objective import Objective
from mgpo.policy.lora import Lora
from mgpo.rollout.in_process import InProcessSampler, Sampling
from mgpo.types import Prompt
from mgpo.vllm import VLLMSampler, sampler, where_installed
from mgpo.vllm.requests import Drawn
from mgpo.vllm.sampler import weights_of
from tests.conftest import make_policy
from tests.helpers.families import ALL, save_checkpoint
from tests.training.test_module import Noisy, fit


class Twin:
    """An engine with a plain model of its own, which knows nothing but what is pushed to it."""

    broken = False

    def __init__(self, policy: Any) -> None:
        self.policy, self.events = policy, []

    def load(self, weights):
        given = dict(weights)
        assert not any("lora" in name or "base_layer" in name for name in given)
        self.policy.model.load_state_dict(given)
        self.events.append("load")

    def sample(self, requests, sampling, stop_text):
        self.events.append("sample")
        for row, request in enumerate(requests):
            prompt = Prompt(request.ids, tuple(image.pixels for image in request.images))
            talk = InProcessSampler().open(self.policy, [prompt], 1)
            ((_, reply),) = talk.reply([request.seed], sampling, stop_text)
            yield row, Drawn(reply.ids, reply.logprobs, 0)

    def sleep(self):
        self.events.append("sleep")

    def close(self):
        self.events.append("close")


class Beside(VLLMSampler):
    """Starts twins in place of engines."""

    def __init__(self, twin: Any) -> None:
        super().__init__()
        self.twin = twin

    def start(self, policy):
        self.twin.events.append("start")
        return self.twin


def test_a_run_pushes_merged_weights_once_a_step_and_weighs_what_is_drawn(tokenizer, tmp_path):
    """Adapters move in every step: without a push, or without them, the log-probs would not be the trainer's."""
    twin = Twin(make_policy(tokenizer, seed=7))
    policy = make_policy(tokenizer, lora=Lora(rank=4)).train()
    module = Noisy(
        policy, sampler=Beside(twin), group_size=4, sampling=Sampling(max_new_tokens=6),
        objective=Objective(kl_weight=0.01, correction_cap=2.0), optimizer=lambda p: torch.optim.AdamW(p, lr=0.01),
    )  # fmt: skip
    torch.manual_seed(0)
    for name, parameter in module.policy.model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.1)
    gaps, adapters = [], []
    publish = module.publish

    def watch():
        gaps.append(module.tally.over_ranks(1)["engine_gap_max"])
        adapters.append(torch.cat([p.detach().flatten() for p in module.policy.parameters() if p.requires_grad]))
        publish()

    module.publish = watch
    trainer = fit(module, tmp_path, questions=6, enable_checkpointing=False)
    assert trainer.global_step == len(gaps) == 3
    assert max(gaps) < 1e-3
    assert all((later - earlier).abs().max() > 1e-4 for earlier, later in pairwise(adapters))
    trained = [event for event in twin.events if event != "sample"]
    assert trained[:2] == ["start", "load"] and trained.count("start") == 1
    assert [event for event in trained[1:] if event != "close"][: 2 * 3] == ["load", "sleep"] * 3
    assert twin.events.count("sample") >= 2 * 3


def test_what_is_pushed_is_summed_in_float32_and_one_by_one(tokenizer):
    policy = make_policy(tokenizer, lora=Lora(rank=4)).bfloat16()
    for parameter in policy.parameters():
        if parameter.requires_grad:
            parameter.data = torch.randn_like(parameter.data.float()) * 0.1
    layers = dict(policy.model.named_modules())
    summed = []
    for layer in (layer for layer in layers.values() if hasattr(layer, "get_delta_weight")):
        made = layer.get_delta_weight
        layer.get_delta_weight = lambda adapter, made=made: summed.append(adapter) or made(adapter)
    next(weights_of(policy))
    assert len(summed) <= 1
    adapted = 0
    for name, value in weights_of(policy):
        layer = layers[name.removesuffix(".weight")] if name.endswith(".weight") else None
        if not hasattr(layer, "lora_A"):
            continue
        adapted += 1
        a, b = (part["default"].weight.double() for part in (layer.lora_A, layer.lora_B))
        delta = layer.scaling["default"] * b @ a
        assert value.dtype == torch.float32 and not value.requires_grad
        assert torch.allclose(value.double(), layer.base_layer.weight.double() + delta, atol=1e-6)
    assert adapted > 0


@pytest.mark.parametrize("family", [f for f in ALL if f.name.startswith("qwen3_vl")], ids=lambda f: f.name)
def test_weights_are_pushed_as_they_are_exported(family, tmp_path):
    """And both as they are published, for an engine turns the experts of Qwen3-VL as it does a checkpoint's."""
    folder = str(save_checkpoint(family, tmp_path / "plain"))
    model = mgpo.load(folder, **family.caps)
    model.save(tmp_path / "export")
    exported, pushed = load_file(tmp_path / "export" / "model.safetensors"), dict(weights_of(model.policy))
    assert exported.keys() == pushed.keys()
    assert [name for name, value in exported.items() if not torch.equal(value, pushed[name])] == []
    experts = {name.rpartition(".")[2]: value.shape for name, value in pushed.items() if ".experts." in name}
    number, width, inner = 4, 32, 24
    turned = {"gate_up_proj": (number, width, 2 * inner), "down_proj": (number, inner, width)}
    assert experts == (turned if "moe" in family.name else {})
    again = mgpo.load(tmp_path / "export").policy.state_dict()
    assert all(torch.equal(value, again[name]) for name, value in model.policy.state_dict().items())


def test_another_policy_and_other_weights_are_pushed_too(tokenizer):
    """As in a notebook, where nothing says so between two evaluations."""
    first, second = make_policy(tokenizer, seed=1), make_policy(tokenizer, seed=2)
    twin = Twin(make_policy(tokenizer, seed=7))
    sampler = Beside(twin)

    def pushed(policy):
        before = twin.events.count("load")
        sampler.prepare(policy)
        held = twin.policy.model.state_dict()
        assert all(torch.equal(held[name], value) for name, value in policy.model.state_dict().items())
        return twin.events.count("load") - before

    assert [pushed(first), pushed(first), pushed(second), pushed(first)] == [1, 0, 1, 1]
    first.load_state_dict(second.state_dict())
    assert [pushed(first), pushed(first)] == [1, 0]
    del first, second  # and no number of theirs is taken for another's
    assert pushed(make_policy(tokenizer, seed=3)) == 1


def test_an_engine_whose_push_failed_is_put_to_sleep(tokenizer):
    policy = make_policy(tokenizer)
    twin = Twin(policy)
    sampler = Beside(twin)

    def load(weights):
        raise RuntimeError("no room")

    twin.load = load
    with pytest.raises(RuntimeError, match="no room"):
        sampler.prepare(policy)
    sampler.release()
    sampler.release()
    assert twin.events == ["start", "sleep"]


def test_a_broken_engine_is_followed_by_another(tokenizer):
    policy = make_policy(tokenizer)
    twin = Twin(make_policy(tokenizer, seed=7))
    sampler = Beside(twin)
    sampler.prepare(policy)
    twin.broken = True
    sampler.prepare(policy)
    assert twin.events == ["start", "load", "close", "start", "load"]


def test_adapters_are_pushed_in_float32_under_autocast_too(tokenizer):
    policy = make_policy(tokenizer, lora=Lora(rank=4))
    for name, parameter in policy.model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.1)
    plain = dict(weights_of(policy))
    twin = Twin(make_policy(tokenizer, seed=7))
    with torch.autocast("cpu", torch.bfloat16):
        Beside(twin).prepare(policy)
    held = twin.policy.model.state_dict()
    assert all(torch.equal(held[name], value) for name, value in plain.items())


@pytest.mark.parametrize("installed", [True, False])
def test_a_recipe_takes_it_where_it_is_installed_and_says_so_where_not(monkeypatch, caplog, installed):
    monkeypatch.setattr(sampler, "find_spec", lambda name: object() if installed else None)
    with caplog.at_level(logging.INFO):
        made = where_installed("bfloat16", 4096, {"block_size": 32})
    if installed:
        assert isinstance(made, VLLMSampler) and not caplog.records
        assert (made.dtype, made.max_model_len, made.options) == ("bfloat16", 4096, {"block_size": 32})
    else:
        assert isinstance(made, InProcessSampler)
        assert [record.message for record in caplog.records] == [
            "vLLM is not installed, so rollouts are drawn in process; docs/vllm.md says how to install it."
        ]
