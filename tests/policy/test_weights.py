"""Every weight of a checkpoint is there, under a name that is known, and a number; otherwise one sentence, and stop."""

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch.distributed.checkpoint.filesystem import FileSystemWriter
from torch.distributed.checkpoint.state_dict_saver import save as save_shards
from transformers import AutoConfig

from mgpo.api import Model
from mgpo.cli import main
from mgpo.dialogues import TwoTurn
from mgpo.inference.predict import predict
from mgpo.policy.hub.checkpoint_files import family_of
from mgpo.policy.hub.run_weights import policy_weights
from mgpo.tools.doctor.examine import finite_weights
from mgpo.utils.configurations import shipped_config
from tests.checkpoints.test_hostile_checkpoints import refused
from tests.conftest import noise_image
from tests.helpers.families import save_checkpoint

WEIGHTS = "model.safetensors"


@pytest.fixture
def copy(family_folder, tmp_path):
    return shutil.copytree(family_folder, tmp_path / "copy")


def load(folder, **options):
    return family_of(str(folder))(str(folder), **options).load()


def rewrite(folder, change):
    """Weights changed in place: `change` takes and gives a dictionary by name."""
    save_file(change(load_file(folder / WEIGHTS)), folder / WEIGHTS, {"format": "pt"})


def first(weights, *parts):
    return next(name for name in sorted(weights) if all(part in name for part in parts))


LOST = {
    "the head": lambda name: name.endswith(("lm_head.weight", "embed_tokens.weight")),  # tied ones are lost together
    "the tower": lambda name: "visual" in name or "vision_tower" in name,
    "a layer": lambda name: ".layers.1." in name,
    "a norm": lambda name: name.endswith("layers.2.input_layernorm.weight"),
    "all": lambda name: True,
}


@pytest.mark.parametrize("lost", LOST)
def test_missing_weights_are_named(copy, lost):
    rewrite(copy, lambda w: {k: v for k, v in w.items() if not LOST[lost](k)} or {"nothing": torch.zeros(1)})
    said = refused(lambda: load(copy), r"\d+ weights of this model are missing")
    assert len(said) <= 600 and str(copy) in said


@pytest.mark.parametrize("prefix", ["base.", "module.", "_orig_mod.model."])
def test_weights_of_other_names_are_named(copy, prefix):
    rewrite(copy, lambda w: {prefix + name: value for name, value in w.items()})
    said = refused(lambda: load(copy), rf"missing \(.*are of no use to it \({prefix}")
    assert len(said) <= 600


def test_what_is_left_over_is_named(copy):
    rewrite(copy, lambda w: w | {"v_head.weight": torch.zeros(3)})
    refused(lambda: load(copy), r"1 are of no use to it \(v_head\.weight\)")


def test_weights_of_another_shape_are_named(copy):
    rewrite(copy, lambda w: w | {(name := first(w, "input_layernorm")): torch.zeros(7).to(w[name].dtype)})
    refused(lambda: load(copy), r"1 are of another shape \(.*input_layernorm\.weight: \(7,\) in place of \(32,\)\)")


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_weights_that_are_no_numbers_are_named(copy, value, dtype):
    def spoil(weights):
        weights = {name: tensor.to(dtype) for name, tensor in weights.items()}
        weights[first(weights, "layers.1", "down_proj")].view(-1)[-1] = value
        return weights

    rewrite(copy, spoil)
    refused(lambda: load(copy), r"1 weights hold NaN or infinity \(.*down_proj")


def test_large_weights_are_numbers(copy):
    """Whose sum is past what their type can hold."""
    rewrite(copy, lambda w: w | {(name := first(w, "layernorm")): torch.full_like(w[name], 60_000.0)})
    assert load(copy, dtype="float16").model is not None


def test_older_and_newer_names_are_known(family, copy):
    """Qwen2.5-VL and Gemma 3 were published under others than their classes have today, and are saved under those."""
    expected = load(copy).state_dict()
    older = {"qwen2_5_vl": "model.layers.0", "gemma3": "language_model.model.layers.0"}.get(family.name, "model.")
    assert any(name.startswith(older) for name in load_file(copy / WEIGHTS))
    save_file({k.removeprefix("model."): v.clone() for k, v in expected.items()}, copy / WEIGHTS, {"format": "pt"})
    loaded = load(copy).state_dict()
    assert all(torch.equal(value, loaded[name]) for name, value in expected.items())


def shard(folder, parts=3):
    """The weights cut over files, with an index."""
    weights = load_file(folder / WEIGHTS)
    (folder / WEIGHTS).unlink()
    names = sorted(weights)
    places = {name: f"model-{i % parts + 1:05}-of-{parts:05}.safetensors" for i, name in enumerate(names)}
    for file in set(places.values()):
        save_file({name: weights[name] for name in names if places[name] == file}, folder / file, {"format": "pt"})
    index = {"metadata": {"total_size": 1}, "weight_map": places}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    return index


def test_shards(copy):
    expected = load(copy).state_dict()
    shard(copy)
    loaded = load(copy).state_dict()
    assert all(torch.equal(value, loaded[name]) for name, value in expected.items())


@pytest.mark.parametrize("harm", ["a file", "a weight", "the index's place", "the index"])
def test_shards_that_are_incomplete(copy, harm):
    index = shard(copy)
    file = copy / "model-00002-of-00003.safetensors"
    if harm == "a file":
        file.unlink()
    if harm == "a weight":
        save_file(dict(list(load_file(file).items())[1:]), file, {"format": "pt"})
    if harm == "the index's place":
        index["weight_map"] = {k: v for k, v in index["weight_map"].items() if v != file.name}
        (copy / "model.safetensors.index.json").write_text(json.dumps(index))
    if harm == "the index":
        (copy / "model.safetensors.index.json").write_text("{}")
    assert str(copy) in refused(lambda: load(copy))


def test_a_tied_head_may_be_left_out_or_stand_in_place_of_the_embeddings(family, tmp_path):
    folder = save_checkpoint(family, tmp_path / "tied", tied=True)
    assert not any("lm_head" in name for name in load_file(folder / WEIGHTS))
    loaded = load(folder)
    assert loaded.model.lm_head.weight is loaded.model.get_input_embeddings().weight
    rewrite(folder, lambda w: {("lm_head.weight" if "embed_tokens" in k else k): v for k, v in w.items()})
    swapped = load(folder).state_dict()
    assert all(torch.equal(value, swapped[name]) for name, value in loaded.state_dict().items())


def test_the_configuration_is_not_believed_where_head_and_embeddings_differ(family, tmp_path):
    """It says that they are one; the file has two, and so has an export."""
    folder = save_checkpoint(family, tmp_path / "tied", tied=True)
    rewrite(folder, lambda w: w | {"lm_head.weight": 2 * w[first(w, "embed_tokens")]})
    policy = load(folder, **family.caps)
    Model(policy, TwoTurn()).save(tmp_path / "out")
    assert not AutoConfig.from_pretrained(tmp_path / "out").tie_word_embeddings
    state = load(tmp_path / "out").state_dict()
    assert all(torch.equal(value, state[name]) for name, value in policy.state_dict().items())
    assert not torch.equal(state["model.lm_head.weight"], state["model.model.language_model.embed_tokens.weight"])


def test_pytorchs_own_files_are_read_without_running_anything(copy, tmp_path):
    expected = load(copy).state_dict()
    weights = load_file(copy / WEIGHTS)
    (copy / WEIGHTS).unlink()
    torch.save(weights, copy / "pytorch_model.bin")
    loaded = load(copy).state_dict()
    assert all(torch.equal(value, loaded[name]) for name, value in expected.items())
    (copy / "pytorch_model.bin").write_bytes((copy / "pytorch_model.bin").read_bytes()[:5000])
    assert str(copy) in refused(lambda: load(copy), "holds no readable weights")


@pytest.fixture
def start(copy, tmp_path):
    policy = load(copy)
    torch.save({"state_dict": {f"policy.{k}": v for k, v in policy.state_dict().items()}}, tmp_path / "x.ckpt")
    return tmp_path / "x.ckpt"


@pytest.mark.parametrize("harm", ["missing", "left over", "misshapen", "nan"])
def test_a_start_that_does_not_fit(copy, start, harm):
    state = torch.load(start)["state_dict"]
    names = [name for name in sorted(state) if ".layers.1." in name]
    if harm == "missing":
        state = {name: value for name, value in state.items() if name not in names}
    if harm == "left over":
        state |= {f"{name}.twice": state[name] for name in names}
    if harm == "misshapen":
        state |= {name: state[name][:1] for name in names}
    if harm == "nan":
        state[names[0]].view(-1)[0] = float("nan")
    torch.save({"state_dict": state}, start)
    words = {"missing": r"lacks model.* and \d+ others", "left over": r"holds model.* and \d+ others"}
    words |= {"misshapen": r"\d+ others don't fit", "nan": "1 weights hold NaN"}
    assert "x.ckpt" in refused(lambda: load(copy, start=str(start)), words[harm])


@pytest.mark.filterwarnings("ignore:torch.distributed is disabled")
def test_a_start_in_shards_whose_files_are_gone(tmp_path):
    folder = tmp_path / "x.ckpt"
    save_shards({"state_dict.policy.a": torch.zeros(3)}, storage_writer=FileSystemWriter(folder), no_dist=True)
    torch.save({}, folder / "meta.pt")
    assert policy_weights(str(folder))["a"].tolist() == [0, 0, 0]
    for file in folder.glob("*.distcp"):
        file.unlink()
    assert "x.ckpt" in refused(lambda: policy_weights(str(folder)))


def test_the_doctor_sees_what_is_no_number(fresh_policy):
    assert finite_weights(fresh_policy).passed
    with torch.no_grad():
        fresh_policy.model.lm_head.weight[0, 0] = float("nan")
    result = finite_weights(fresh_policy)
    assert result.passed is False and "embed_tokens.weight" in result.text  # one with the head


@pytest.mark.parametrize("command", ["doctor", "fit", "validate"])
def test_the_commands_stop(family_folder, family, command, tmp_path, monkeypatch):
    if family.name != "qwen3_vl":
        pytest.skip("one family will do")
    copy = shutil.copytree(family_folder, tmp_path / "copy")
    rewrite(copy, lambda w: {k: v for k, v in w.items() if ".layers.1." not in k})
    monkeypatch.chdir(tmp_path)
    chosen = "--model.policy=mgpo.policy.families.qwen3_vl.Qwen3VL", f"--model.policy.init_args.path={copy}"
    with pytest.raises(SystemExit, match=r"mgpo: .*weights of this model are missing"):
        main([command, "--config", str(shipped_config("mgpo")), *chosen])


def test_predict_stops(copy, tmp_path):
    rewrite(copy, lambda w: {k: v for k, v in w.items() if ".layers.1." not in k})
    noise_image(50, 50).save(tmp_path / "a.png")
    refused(lambda: predict(str(tmp_path), str(tmp_path / "out.jsonl"), "Which?", str(copy)), "are missing")
    assert not (tmp_path / "out.jsonl").exists()
