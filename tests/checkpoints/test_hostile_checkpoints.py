"""Checkpoints and configurations from strangers: no code of theirs runs, and what is wrong is said in one sentence."""

import io
import json
import pickle
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from mgpo.api import load
from mgpo.checkpoints.sharded import _Index
from mgpo.errors import UserError
from mgpo.policy.hub.checkpoint_files import family_of
from mgpo.policy.hub.run_weights import policy_weights
from tests.helpers.families import ALL, save_checkpoint

LOADED = "loaded.txt"


class Harm:
    """Writes a file when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


@pytest.fixture
def folder(tmp_path):
    return save_checkpoint(ALL[0], tmp_path / "model")


def refused(call, words="."):
    with pytest.raises(UserError, match=words) as caught:
        call()
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 1000
    return str(caught.value)


def load_policy(folder, **options):
    return family_of(str(folder))(str(folder), **ALL[0].caps, **options).load()


@pytest.mark.parametrize("save", [torch.save, lambda value, path: path.write_bytes(pickle.dumps(value, 2))])
def test_a_checkpoint_with_code_in_it_is_refused_and_does_not_run(tmp_path, save):
    save({"state_dict": {"policy.weight": Harm(tmp_path / LOADED)}}, tmp_path / "x.ckpt")
    assert "x.ckpt" in refused(lambda: policy_weights(str(tmp_path / "x.ckpt")))
    assert not (tmp_path / LOADED).exists()


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.99])
def test_a_truncated_checkpoint_is_named(tmp_path, share):
    torch.save({"state_dict": {"policy.weight": torch.zeros(1000)}}, tmp_path / "x.ckpt")
    data = (tmp_path / "x.ckpt").read_bytes()
    (tmp_path / "x.ckpt").write_bytes(data[: int(share * len(data))])
    assert "x.ckpt" in refused(lambda: policy_weights(str(tmp_path / "x.ckpt")))


@pytest.mark.parametrize("value", [None, [], "x", {"state_dict": None}, {"state_dict": {1: 2}}, {"weights": {}}])
def test_what_is_no_checkpoint_of_a_run_is_named(tmp_path, value):
    torch.save(value, tmp_path / "x.ckpt")
    assert "x.ckpt" in refused(lambda: policy_weights(str(tmp_path / "x.ckpt")))


@pytest.mark.parametrize(
    "state", [{"policy.other": torch.zeros(1)}, {"policy.model.lm_head.weight": torch.zeros(2, 2)}]
)
def test_the_checkpoint_of_another_model_is_named(tmp_path, folder, state):
    torch.save({"state_dict": state}, tmp_path / "x.ckpt")
    refused(lambda: load_policy(folder, start=str(tmp_path / "x.ckpt")), r"x\.ckpt")


@pytest.mark.parametrize("damage", ["truncated", "header", "garbage", "empty"])
def test_damaged_weights_are_named(folder, damage):
    path = next(folder.glob("*.safetensors"))
    data = path.read_bytes()
    path.write_bytes(
        {"truncated": data[: len(data) // 2], "header": b"\xff" * 8 + data[8:], "garbage": b"x" * 100, "empty": b""}[
            damage
        ]
    )
    refused(lambda: load_policy(folder), str(folder))


def test_weights_of_another_shape_are_named(folder):
    path = next(folder.glob("*.safetensors"))
    weights = load_file(path)
    name = max(weights, key=lambda name: weights[name].numel())
    save_file({**weights, name: weights[name][:3].clone()}, path, {"format": "pt"})
    refused(lambda: load_policy(folder), str(folder))


def test_code_beside_a_checkpoint_does_not_run(tmp_path, folder):
    """No option turns it on: what config.json says of classes in files of its own is never followed."""
    code = f"open({str(tmp_path / LOADED)!r}, 'w')\nclass Config: pass\nclass Model: pass\n"
    (folder / "harm.py").write_text(code)
    for name in ("config.json", "tokenizer_config.json", "preprocessor_config.json"):
        config = json.loads((folder / name).read_text())
        config["auto_map"] = {
            "AutoConfig": "harm.Config", "AutoModelForImageTextToText": "harm.Model", "AutoModel": "harm.Model",
            "AutoTokenizer": ["harm.Model", "harm.Model"], "AutoImageProcessor": "harm.Model",
        }  # fmt: skip
        (folder / name).write_text(json.dumps(config))
    assert load_policy(folder).model is not None
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "model_type": "unheard_of"}))
    refused(lambda: load_policy(folder))
    assert not (tmp_path / LOADED).exists()


@pytest.mark.parametrize("text", ["", "[" * 10_000, "null", "[]", '{"model_type": 7}', "{", '{"model_type": []}'])
def test_a_configuration_of_a_model_that_cannot_be_read(folder, text):
    (folder / "config.json").write_text(text)
    refused(lambda: load_policy(folder), str(folder))


SAMPLING = "eval_sampling: {max_new_tokens: 8}"
BOMB = "\n".join(["a0: &a0 [x]", *(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, 12))])


@pytest.mark.parametrize(
    "text", ["", "7", "[]", "model: 7", "model: {policy: 7}", "a: [", "!!python/object/apply:os.system ['true']", BOMB,
             f"model: {{{SAMPLING}, policy: {{class_path: os.system, init_args: {{command: 'true'}}}}}}",
             f"model: {{{SAMPLING}, policy: {{class_path: mgpo.nowhere.Policy}}}}", "\0"],
)  # fmt: skip
def test_a_run_whose_configuration_is_damaged(tmp_path, text):
    (tmp_path / "config.yaml").write_text(text)
    refused(lambda: load(tmp_path), "config.yaml|policy|model")


@pytest.mark.parametrize("module", [b"pathlib", b"pathlib._local"])  # the latter by Python 3.13 alone
def test_an_index_of_shards_may_be_of_another_python(module):
    pickled = b"c" + module + b"\nPosixPath\n(V/tmp\nVshards\ntR."
    assert _Index(io.BytesIO(pickled)).load() == Path("/tmp/shards")


def test_an_index_of_shards_holds_nothing_else(tmp_path):
    with pytest.raises(pickle.UnpicklingError, match="open"):
        _Index(io.BytesIO(pickle.dumps(Harm(tmp_path / LOADED)))).load()
    assert not (tmp_path / LOADED).exists()
