"""A model family of one's own: a class in one file, named by its path; its tiny checkpoint is one entry of a table."""

import json

import pytest

import mgpo
from mgpo.cli import main
from mgpo.dialogues import TwoTurn
from mgpo.images.views import Frame
from mgpo.inference.local import Model
from mgpo.policy.hub.checkpoint_files import shipped_families
from tests.conftest import noise_image
from tests.helpers.cases import RULE
from tests.helpers.families import PLAIN_ROPE, TEXT, Family, save_checkpoint
from tests.test_cli import ROOT, SMALL

QWEN2_VL = """
    from mgpo.images import Frame
    from mgpo.policy import QwenVL

    class Qwen2VL(QwenVL):
        model_types = ("qwen2_vl",)
        frame = published_frame = Frame.THOUSAND
        video_processor = "Qwen2VLVideoProcessor"

        def decode(self, ids, features, positions, mask, cache):
            return self.run(self.embed(ids, features), positions, {"full_attention": mask}, cache)
"""
FAMILY = Family(
    "qwen2_vl", Frame.THOUSAND, 28,
    dict(depth=2, embed_dim=32, num_heads=2, hidden_size=32, mlp_ratio=2, patch_size=14),
    TEXT | dict(rope_parameters=PLAIN_ROPE),
)  # fmt: skip


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return save_checkpoint(FAMILY, tmp_path_factory.mktemp("own_family"))


@pytest.fixture
def arguments(write_file, checkpoint):
    """What names the class and its checkpoint on the command line."""
    write_file("my_family", QWEN2_VL)
    policy = {"class_path": "my_family.Qwen2VL", "init_args": {"path": str(checkpoint), **FAMILY.caps}}
    return [f"--model.policy={json.dumps(policy)}", "--model.dialogue.init_args.rule.min_side=8"]


def test_every_check_of_the_doctor_knows_it(arguments, capsys):
    quick = ["--model.sampling.max_new_tokens=8", "--trainer.accelerator=cpu"]
    main(["doctor", "--config", str(ROOT / "configs" / "mgpo.yaml"), *SMALL, *quick, *arguments])
    said = capsys.readouterr().out
    assert "FAILED" not in said
    assert all("memory" in line for line in said.splitlines() if "skipped" in line)  # which takes a device
    assert "a mark named in thousand is found" in " ".join(said.split())


def test_an_export_brings_it_along(arguments, configured, tmp_path):
    policy = configured(*arguments).model.policy.load().eval()
    assert type(policy).__module__ == "my_family"
    before = Model(policy, TwoTurn(rule=RULE), 8)
    before.save(tmp_path / "out")
    made = json.loads((tmp_path / "out" / "mgpo.json").read_text())["policy"]
    assert made["class_path"] == "my_family.Qwen2VL" and made["init_args"]["max_pixels"] == FAMILY.caps["max_pixels"]
    video = json.loads((tmp_path / "out" / "video_preprocessor_config.json").read_text())
    assert video["video_processor_type"] == "Qwen2VLVideoProcessor"
    after = mgpo.load(tmp_path / "out")
    assert type(after.policy) is type(policy) and after.resolution == before.resolution
    assert after.ask(noise_image(300, 200), "Which?").turns == before.ask(noise_image(300, 200), "Which?").turns


def test_every_family_here_says_all_that_one_is_asked():
    """What stood in tables beside the families."""
    families = shipped_families()
    assert set(families) == {"qwen2_5_vl", "qwen3_vl", "qwen3_vl_moe", "qwen3_5", "qwen3_5_moe", "gemma3"}
    assert {
        name: kind.published_frame for name, kind in families.items() if kind.published_frame != Frame.THOUSAND
    } == {"qwen2_5_vl": Frame.PIXELS}
    assert {name: kind.video_processor for name, kind in families.items()} == {
        "qwen2_5_vl": "Qwen2VLVideoProcessor",
        **dict.fromkeys(("qwen3_vl", "qwen3_vl_moe", "qwen3_5", "qwen3_5_moe"), "Qwen3VLVideoProcessor"),
        "gemma3": None,
    }
