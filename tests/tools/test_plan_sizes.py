"""Published sizes without a hub: each has the parameters of its checkpoint, and is found by family or by name."""

import json

import pytest
from transformers import AutoConfig

from mgpo.cli import main
from mgpo.errors import UserError
from mgpo.policy.families.qwen2_5_vl import Qwen25VL
from mgpo.policy.hub.checkpoint_files import shipped_families
from mgpo.tools.plan.shape import measure_shape, read_config
from mgpo.tools.plan.sizes import FAMILIES, GEMMA3, QWEN2_5_VL, QWEN3_5, QWEN3_VL
from mgpo.utils.configurations import shipped_config
from tests.test_cli import ROOT

# As the hub counts the values in a checkpoint's files; of Qwen3.5 without those of its drafting layer.
PUBLISHED = {
    QWEN2_5_VL: {"3b": 3_754_622_976, "7b": 8_292_166_656, "32b": 33_452_718_336, "72b": 73_410_777_344},
    QWEN3_VL: {
        "2b": 2_127_532_032, "4b": 4_437_815_808, "8b": 8_767_123_696, "32b": 33_357_390_064,
        "30b-a3b": 31_070_754_032, "235b-a22b": 235_670_022_896,
    },
    QWEN3_5: {
        "0.8b": 852_985_920, "2b": 2_213_241_664, "4b": 4_539_265_536, "9b": 9_409_813_744, "27b": 27_356_728_560,
        "35b-a3b": 35_107_181_936,
    },
    GEMMA3: {"4b": 4_300_079_472, "12b": 12_187_325_040, "27b": 27_432_406_640},
}  # fmt: skip
EACH = [(family, size) for family in FAMILIES for size in family.sizes]
NAMES = {
    "Qwen/Qwen2.5-VL-7B-Instruct": (QWEN2_5_VL, "7b"),
    "Qwen/Qwen3-VL-8B-Instruct": (QWEN3_VL, "8b"),
    "Qwen/Qwen3-VL-30B-A3B-Thinking": (QWEN3_VL, "30b-a3b"),
    "Qwen/Qwen3.5-9B": (QWEN3_5, "9b"),
    "Qwen/Qwen3.5-0.8B-Base": (QWEN3_5, "0.8b"),
    "google/gemma-3-4b-it": (GEMMA3, "4b"),
    "google/gemma-3-12b-pt": (GEMMA3, "12b"),
}


class Unheard(Qwen25VL):
    """Of a family that nobody knows."""

    model_types = ("unheard",)


@pytest.fixture(autouse=True)
def no_hub(monkeypatch):
    def unreachable(path):
        raise OSError("no connection")

    monkeypatch.setattr(AutoConfig, "from_pretrained", unreachable)


@pytest.mark.parametrize(("family", "size"), EACH, ids=lambda value: getattr(value, "name", value))
def test_published_sizes_have_their_published_parameters(family, size):
    assert measure_shape(family.config(size)).parameters == PUBLISHED[family][size]


def test_the_sizes_of_every_family_that_can_be_trained_are_known():
    assert {kind for family in FAMILIES for kind in family.model_types} == set(shipped_families())
    assert PUBLISHED.keys() == set(FAMILIES)


def test_what_a_token_passes_of_a_mixture():
    """Qwen3-VL-30B-A3B: 48 layers of 19.1 million parameters besides 128 experts of 4.7 million, of which 8 are asked;
    with embeddings and head those are the 3.3 billion "active" ones of its text model."""
    block = measure_shape(QWEN3_VL.config("30b-a3b")).language
    expert = 3 * 2048 * 768
    assert block.parameters - block.active == 120 * expert
    assert 48 * block.active + 2 * 151936 * 2048 == pytest.approx(3.3e9, rel=0.02)
    assert (block.mlp, block.gated) == (8 * 768, True)
    assert measure_shape(QWEN3_5.config("35b-a3b")).language.mlp == 9 * 512  # with the one that all tokens pass
    dense = measure_shape(QWEN3_VL.config("8b")).language
    assert dense.active == dense.parameters


@pytest.mark.parametrize("name", NAMES)
def test_names_on_the_hub_are_known(name):
    family, size = NAMES[name]
    assert read_config(name).to_dict() == family.config(size).to_dict()


@pytest.mark.parametrize("name", ["google/gemma-3-1b-it", "Qwen/Qwen3-VL-8B", "somebody/Qwen3-VL-8B-Instruct"])
def test_other_names_are_asked_for(name):
    with pytest.raises(UserError, match=f"{name} is no folder here.* to a local folder, or give --model_size .2b, 4b,"):
        read_config(name, QWEN3_VL.sizes)
    with pytest.raises(UserError, match=r"to a local folder$"):
        read_config(name)


@pytest.mark.parametrize(
    ("model", "size", "named"),
    [
        ("qwen3_vl_8b", "8b", "Qwen3-VL 8b: 8.77 billion"),
        ("qwen3_vl_8b", "30B-A3B", "Qwen3-VL 30B-A3B: 31.07 billion"),
        ("qwen3_5_9b", "4b", "Qwen3.5 4b: 4.54 billion"),
        ("gemma3_4b", "27b", "Gemma 3 27b: 27.43 billion"),
    ],
)
def test_plans_of_a_family_s_sizes(model, size, named, tmp_path, capsys):
    recipe, family = shipped_config("qwen2_5_vl_7b"), shipped_config(f"models/{model}")
    output = tmp_path / "plan.json"
    main(["plan", f"--config={recipe}", f"--config={family}", f"--model_size={size}", f"--output={output}"])
    assert named in " ".join(capsys.readouterr().out.split())
    assert [turn["image"] for turn in json.loads(output.read_text())["turns"]] == (
        [256, 256] if model == "gemma3_4b" else [1280, 1280]
    )


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--model_size=13b"], "trains a Qwen25VL (known offline: 3b, 7b, 32b, 72b)"),
        (["--model_size=7b", "--model.policy.class_path=mgpo.policy.Qwen3VL"], "Qwen3VL (known offline: 2b, 4b, 8b"),
        (["--model_size=72b", "--model.policy.class_path=mgpo.policy.Qwen35"], "Qwen35 (known offline: 0.8b, 2b, 4b"),
        (["--model_size=1b", "--model.policy.class_path=mgpo.policy.Gemma3"], "Gemma3 (known offline: 4b, 12b, 27b)"),
        (["--model_size=7b", "--model.policy.class_path=tests.tools.test_plan_sizes.Unheard"], "Unheard (of which no"),
    ],
)
def test_sizes_that_are_not_known_get_one_sentence(arguments, says):
    with pytest.raises(SystemExit) as stop:
        main(["plan", "--config", str(shipped_config("mgpo")), *arguments])
    said = str(stop.value)
    assert says in said and "model.policy.init_args.path" in said and "\n" not in said and len(said) <= 600


def test_the_documents_name_the_same_sizes():
    page = (ROOT / "docs/plan-and-doctor.md").read_text()
    assert all(f"| {family.name} | {', '.join(family.sizes)} |" in page for family in FAMILIES)
