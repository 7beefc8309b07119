"""Every family from its files: by Python, by a recipe with an overlay, and with files that do not fit."""

import importlib
import json
import shutil

import pytest
import yaml

import mgpo
from mgpo.policy.families.gemma3 import Gemma3
from mgpo.policy.families.qwen import QwenVL
from mgpo.policy.families.qwen2_5_vl import Qwen25VL
from mgpo.policy.hub.checkpoint_files import family_of, shipped_families
from tests.conftest import noise_image
from tests.helpers.families import ALL, save_checkpoint
from tests.test_cli import ROOT, run


@pytest.fixture
def policy(family_policy):
    return family_policy


@pytest.fixture
def folder(family_folder):
    return family_folder


@pytest.mark.parametrize("missing", ["preprocessor_config.json", "tokenizer.json", "model.safetensors", "config.json"])
def test_a_missing_file_is_named(family, folder, policy, tmp_path, missing):
    part = shutil.copytree(folder, tmp_path / "copy", ignore=lambda *_: [missing])
    named = "weights" if missing == "model.safetensors" else missing
    with pytest.raises(ValueError, match=rf"copy holds no readable .*{named}"):
        type(policy)(str(part)).load()


def test_a_template_may_stand_in_a_file_of_its_own(folder, policy, tmp_path):
    """As older checkpoints have it; without any there is nothing to say how turns look."""
    part = shutil.copytree(folder, tmp_path / "copy", ignore=lambda *_: ["chat_template.jinja"])
    with pytest.raises(ValueError, match=r"copy has no chat template"):
        type(policy)(str(part)).load()
    (part / "chat_template.json").write_text(json.dumps({"chat_template": policy.tokenizer.chat_template}))
    assert type(policy)(str(part)).load().chat.end_id == policy.chat.end_id


def test_a_tokenizer_without_vision_tokens_is_refused(family, folder, policy, tmp_path):
    other = shutil.copytree(folder, tmp_path / "copy")
    for name in ("tokenizer.json", "tokenizer_config.json"):
        text = (other / name).read_text()
        (other / name).write_text(text.replace(policy.marks[-1], policy.marks[-1].replace("e", "o")))
    with pytest.raises(ValueError, match=rf"lacks .*this is not a {policy.model_types[0]} checkpoint"):
        type(policy)(str(other)).load()


def test_another_familys_checkpoint_is_refused_with_the_right_class(family, folder, policy):
    other = Gemma3 if family.name == "qwen2_5_vl" else Qwen25VL
    right = f"{type(policy).__module__}.{type(policy).__name__}"
    with pytest.raises(
        ValueError, match=rf"holds a {family.name} model; this policy needs \w+; take class_path {right}"
    ):
        other(str(folder)).load()


def test_a_model_of_no_family_is_refused(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "llava"}))
    with pytest.raises(ValueError, match=r"holds a llava model; .*no family here takes that"):
        Qwen25VL(str(tmp_path)).load()
    with pytest.raises(ValueError, match="holds a llava model; the families here are"):
        family_of(str(tmp_path))


def test_what_cannot_be_fetched_is_said_in_one_sentence(monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(ValueError, match="some/model is neither a folder nor a model of the hub") as error:
        Qwen25VL("some/model").load()
    assert "\n" not in str(error.value)


def test_python_loads_every_family(family, folder, policy):
    model = mgpo.load(folder, **family.caps)
    model.max_new_tokens = 4
    assert type(model.policy) is type(policy)
    assert len(model.ask(noise_image(640, 320), "Which letter?").turns) == 2


@pytest.mark.parametrize("path", sorted((ROOT / "configs" / "models").iterdir()), ids=lambda path: path.stem)
def test_overlays_name_classes_that_take_their_settings(path):
    """Their image token is the family's, and so are the pixel caps of 1280 and 256 tokens."""
    chosen = yaml.safe_load(path.read_text())["model"]
    side = chosen["dialogue"]["init_args"]["rule"]["min_side"]
    made = chosen["policy"]
    module, name = made["class_path"].rsplit(".", 1)
    kind = getattr(importlib.import_module(module), name)
    policy = kind(**made["init_args"])
    assert kind in shipped_families().values()
    assert "dtype" not in made["init_args"]  # which is the recipe's to say
    (factor,) = {family.factor for family in ALL if family.name in policy.model_types}
    assert side == factor
    if isinstance(policy, QwenVL):
        assert (policy.max_pixels, policy.min_pixels) == (1280 * side**2, 256 * side**2)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["qwen3_5_9b", "gemma3_4b"])
def test_a_recipe_runs_with_another_familys_model(name, tmp_path):
    """The published recipe with an overlay on top, on a tiny checkpoint: a step of training between two evaluations."""
    family = next(family for family in ALL if name.startswith(family.name))
    save_checkpoint(family, tmp_path / "checkpoint")
    noise_image(900, 700).save(tmp_path / "0.png")
    row = {"image": "0.png", "question": "Which?", "choices": ["a", "b"], "answer": "B"}
    (tmp_path / "rows.jsonl").write_text("\n".join(json.dumps(row | {"question": f"Which, {i}?"}) for i in range(2)))
    source = f"{{class_path: mgpo.data.Files, init_args: {{path: {tmp_path}/rows.jsonl, split: mine}}}}"
    run(
        "fit", "--config", str(ROOT / "configs/qwen2_5_vl_7b.yaml"),
        "--config", str(ROOT / "configs" / "models" / f"{name}.yaml"),
        *(f"--model.policy.init_args.{k}={v}" for k, v in family.caps.items()),
        f"--model.policy.init_args.path={tmp_path}/checkpoint", "--model.sampling.max_new_tokens=6",
        "--model.eval_sampling.max_new_tokens=6", "--model.group_size=2", "--model.mini_batches=2",
        f"--data.train={source}", f"--data.val=[{source}]", "--data.batch_size=2", "--data.num_workers=0",
        "--trainer.accelerator=cpu", "--trainer.devices=1", "--trainer.num_nodes=1", "--trainer.strategy=auto",
        "--trainer.max_epochs=1", "--model.dialogue.init_args.rule.min_side=8", cwd=tmp_path,
    )  # fmt: skip
    (report,) = tmp_path.glob("runs/mgpo/version_*/report.json")
    assert json.loads(report.read_text())["step"] == 2
