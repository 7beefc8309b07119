"""Adapters: none is lost on the way out, and those of peft are a start."""

import json
import re
import shutil
from dataclasses import replace
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

import mgpo
from mgpo.api import Model
from mgpo.dialogues import TwoTurn
from mgpo.inference.export import export
from mgpo.inference.saving import merged_weights
from mgpo.policy.hub.checkpoint_files import family_of
from mgpo.policy.lora import LANGUAGE, VISION, Lora
from mgpo.policy.passes.logprobs import score
from tests.checkpoints.test_hostile_checkpoints import refused
from tests.conftest import make_policy, noise_image
from tests.helpers.cases import SAMPLES, case_of
from tests.helpers.families import ALL, save_checkpoint

CONFIG = "adapter_config.json"
ONE = pytest.mark.parametrize("family", ALL[:1], ids=lambda family: family.name, indirect=True)


def load(folder, **options) -> Any:
    return family_of(str(folder))(str(folder), **options).load().eval()


@pytest.fixture(scope="session")
def untied(family, tmp_path_factory):
    return save_checkpoint(family, tmp_path_factory.mktemp("untied") / "base", tied=False)


@pytest.fixture(scope="session")
def tied(family, tmp_path_factory):
    return save_checkpoint(family, tmp_path_factory.mktemp("tied") / "base", tied=True)


def shake_adapters(policy):
    torch.manual_seed(1)
    for name, parameter in policy.model.named_parameters():
        if ".lora_" in name:
            torch.nn.init.normal_(parameter, std=0.1)


@pytest.mark.parametrize("targets", [r".*embed_tokens", r"lm_head", r".*(q_proj|lm_head)", r".*"])
def test_adapters_on_what_is_shared_are_refused(tied, targets):
    said = refused(lambda: load(tied, lora=Lora(2, targets=targets)), "policy.lora.targets")
    assert targets == ".*" or re.search("shares its weight with .*(lm_head|embed_tokens)", said)


@ONE
@pytest.mark.parametrize(
    ("targets", "words"),
    [
        ("(", "no regular expression"), ("nowhere", "no layer fits"), (r".*layers\.0", "only linear layers"),
        (r".*(patch_embed.proj|patch_embedding|linear_attn.conv1d)", "only linear layers"), ("", "only linear layers"),
    ],
)  # fmt: skip
def test_targets_that_are_no_layers_are_refused(untied, targets, words):
    refused(lambda: load(untied, lora=Lora(2, targets=targets)), words)


@ONE
def test_a_fused_head_is_refused_an_adapter(untied, monkeypatch):
    monkeypatch.setattr("mgpo.policy.pretrained.load_kernel", lambda: None)
    refused(lambda: load(untied, lora=Lora(2, targets=".*lm_head"), fused_head=True), "fused_head")


def logprobs(policy, batch):
    with torch.no_grad():
        return score(policy, batch).logprobs_NC[batch.policy_NC]


@pytest.mark.parametrize(
    "targets", [".*lm_head", ".*embed_tokens", f"(.*lm_head)|(.*embed_tokens)|({LANGUAGE})|({VISION})"]
)
def test_an_export_scores_as_the_trained_policy(family, untied, tmp_path, targets):
    """With adapters on everything that may have one; and what is pushed to an engine are the same weights."""
    policy = load(untied, lora=Lora(2, targets=targets), **family.caps)
    batch = case_of(policy, samples=SAMPLES).batch
    base = logprobs(policy, batch)
    shake_adapters(policy)
    trained = logprobs(policy, batch)
    assert (trained - base).abs().max() > 1e-2
    Model(policy, TwoTurn()).save(tmp_path / "merged")
    merged = load(tmp_path / "merged")
    assert (logprobs(merged, batch) - trained).abs().max() < 1e-4
    pushed = dict(merged_weights(policy.model))
    assert all(torch.equal(value, pushed[name]) for name, value in merged.model.state_dict().items())
    Model(policy, TwoTurn()).save(tmp_path / "alone", merge=False)
    assert (logprobs(load(tmp_path / "alone"), batch) - trained).abs().max() < 1e-5


@pytest.fixture
def trained(family, untied):
    policy: Any = load(untied, lora=Lora(4, 6, vision=not family.gemma), **family.caps)
    shake_adapters(policy)
    return policy


@pytest.fixture
def alone(trained, tmp_path):
    Model(trained, TwoTurn(ask_box="{image}Where? {question}"), 9).save(tmp_path / "alone", merge=False)
    return tmp_path / "alone"


def changed(folder, file=CONFIG, **fields):
    (folder / file).write_text(json.dumps(json.loads((folder / file).read_text()) | fields))


def test_adapters_are_loaded_with_the_dialogue_of_their_training(trained, alone):
    model = mgpo.load(alone)
    picture = noise_image(300, 200)
    expected = Model(trained, model.dialogue, 9).ask(picture, "Which?").turns
    assert model.ask(picture, "Which?").turns == expected
    assert model.max_new_tokens == 9 and model.dialogue.ask_box == "{image}Where? {question}"
    assert model.resolution == trained.resolution


def test_adapters_go_on_to_be_trained(family, untied, trained, alone, tmp_path):
    """By their own folder, or as the start of their base, where `lora` may be left out or be the same."""
    expected = {name: p for name, p in trained.named_parameters() if p.requires_grad}
    same = trained.lora
    for path, options in [(alone, {}), (untied, dict(start=str(alone))), (untied, dict(start=str(alone), lora=same))]:
        policy = load(path, **options, dtype="bfloat16", **family.caps)
        learnt = {name: p for name, p in policy.named_parameters() if p.requires_grad}
        assert learnt.keys() == expected.keys()
        assert all(torch.equal(p, expected[name]) and p.dtype == torch.float32 for name, p in learnt.items())
        assert policy.reference() is not None and (policy.lora.rank, policy.lora.alpha) == (4, 6)
    torch.save({"state_dict": {f"policy.{k}": v for k, v in policy.state_dict().items()}}, tmp_path / "x.ckpt")
    with torch.no_grad():
        next(iter(learnt.values())).zero_()
    again = load(alone, start=str(tmp_path / "x.ckpt"), dtype="bfloat16")
    assert all(torch.equal(p, again.state_dict()[name]) for name, p in expected.items())
    Model(policy, TwoTurn()).save(tmp_path / "again", merge=False)
    assert json.loads((tmp_path / "again" / CONFIG).read_text())["base_model_name_or_path"] == str(untied)


def test_those_of_peft_itself(family, untied, tmp_path):
    """A list of names, no file of this package, and a base that the user names."""
    trained = load(untied, lora=Lora(4, 6, targets=r".*\.(q|k|v|o)_proj"), **family.caps)
    shake_adapters(trained)
    Model(trained, TwoTurn()).save(tmp_path / "alone", merge=False)
    folder = tmp_path / "peft"
    folder.mkdir()
    for name in (CONFIG, "adapter_model.safetensors"):
        shutil.copy(tmp_path / "alone" / name, folder / name)
    names = ["k_proj", "o_proj", "q_proj", "v_proj"]
    changed(folder, target_modules=names, lora_dropout=0.05, task_type="CAUSAL_LM", eva_config={})
    policy: Any = mgpo.load(folder, **family.caps).policy
    assert all(torch.equal(value, policy.state_dict()[name]) for name, value in trained.state_dict().items())
    changed(folder, base_model_name_or_path="/some/where/else")
    started = load(untied, start=str(folder))
    assert all(torch.equal(value, started.state_dict()[name]) for name, value in trained.state_dict().items())


@ONE
@pytest.mark.parametrize(
    ("fields", "words"),
    [
        (dict(use_rslora=True), "use_rslora True"), (dict(use_dora=True), "use_dora"), (dict(bias="all"), "bias all"),
        (dict(modules_to_save=["lm_head"]), "modules_to_save"), (dict(peft_type="IA3"), "are IA3, not LORA"),
        (dict(rank_pattern={"q_proj": 2}), "rank_pattern"), (dict(init_lora_weights="pissa"), "init_lora_weights"),
        (dict(target_modules=None), "target_modules None"), (dict(target_modules="all-linear"), "all-linear"),
        (dict(exclude_modules="visual"), "exclude_modules"), (dict(unheard_of=3), "unheard_of 3"),
        (dict(r=8), "of another shape"), (dict(r="8"), "r 8"), (dict(target_modules=["q_proj"]), "of no use"),
        (dict(base_model_name_or_path=None), "names no base"), (dict(target_modules="("), "no regular expression"),
        (dict(base_model_name_or_path="/no/where"), "belong to /no/where, which is not here; give the base as"),
        (dict(target_modules=r".*lm_head|.*q_proj"), "are missing"),
    ],
)  # fmt: skip
def test_what_cannot_be_honoured_is_refused(alone, fields, words):
    changed(alone, **fields)
    assert len(refused(lambda: mgpo.load(alone), words)) <= 600


@ONE
@pytest.mark.parametrize("harm", ["no weights", "cut", "a weight less", "nan", "no json", "a list", "a model beside"])
def test_damaged_adapters(alone, untied, harm):
    file = alone / "adapter_model.safetensors"
    weights = load_file(file)
    if harm == "no weights":
        file.unlink()
    if harm == "cut":
        file.write_bytes(file.read_bytes()[:1000])
    if harm == "a weight less":
        save_file(dict(list(weights.items())[1:]), file)
    if harm == "nan":
        next(iter(weights.values())).view(-1)[0] = float("nan")
        save_file(weights, file)
    if harm in ("no json", "a list"):
        (alone / CONFIG).write_text("{" if harm == "no json" else "[]")
    if harm == "a model beside":
        shutil.copytree(untied, alone, dirs_exist_ok=True)
    assert str(alone) in refused(lambda: mgpo.load(alone))


@ONE
def test_a_start_that_is_not_as_wanted(untied, alone, trained):
    lora = trained.lora
    for other, words in [
        (replace(lora, rank=8), "rank 8 and alpha 6, .* 4 and 6"), (replace(lora, alpha=4), "rank 4 and alpha 4"),
        (replace(lora, targets=r".*q_proj"), "differ in .* layers, such as"),
    ]:  # fmt: skip
        refused(lambda o=other: load(untied, start=str(alone), lora=o), words)


@ONE
def test_adapters_of_another_model(tmp_path, alone, family):
    shorter = {"num_hidden_layers": 3}
    if "layer_types" in family.text:
        shorter["layer_types"] = family.text["layer_types"][:3]
    other = save_checkpoint(replace(family, text=family.text | shorter), tmp_path / "o")
    refused(lambda: load(other, start=str(alone)), "of no use")


@ONE
def test_an_export_of_adapters_by_command(alone, untied, tmp_path):
    export(str(alone), str(tmp_path / "merged"))
    assert load(tmp_path / "merged").lora is None


def test_adapters_that_are_set_aside_are_still_trained(tokenizer):
    """FSDP takes from its first pass what is trained, and that may be the reference's."""
    policy = make_policy(tokenizer, lora=Lora(2))
    learnt = [name for name, p in policy.named_parameters() if p.requires_grad]
    layers = [m for m in policy.modules() if hasattr(m, "_disable_adapters")]
    with policy.reference():
        assert all(layer.disable_adapters for layer in layers) and layers
        assert [name for name, p in policy.named_parameters() if p.requires_grad] == learnt
    assert not any(layer.disable_adapters for layer in layers)
