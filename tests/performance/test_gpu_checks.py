"""The checks of `tests/gpu` themselves, run on the CPU: there they measure rounding alone, and notice what is wrong."""

import pytest
import torch

from tests.conftest import make_pictures
from tests.gpu import checks
from tests.helpers.families import ALL, save_checkpoint

SMALL = [
    "--data.train.init_args.count=2", "--data.train.init_args.side=512", "--data.batch_size=2", "--data.num_workers=0",
    "--data.val=[{class_path: mgpo.data.Scenes, init_args: {count: 2, side: 512, split: val}}]",
]  # fmt: skip


def test_a_family_agrees_with_itself(family, family_folder):
    gaps = checks.family_gaps(family, family_folder, "cpu", new_tokens=8)
    assert gaps.trainer == 0.0 and gaps.sampler < 1e-4 and gaps.gradient < 1e-3


def test_rounding_shows(tmp_path):
    gaps = checks.short_gaps(ALL[0], save_checkpoint(ALL[0], tmp_path), "cpu", half=True)
    assert 0 < gaps.trainer_mean < 0.1 and 1e-3 < gaps.gradient < 0.3


@pytest.mark.parametrize("width", [12, 128])
def test_heads_of_other_widths_agree(width, tmp_path):
    gaps = checks.head_gaps(ALL[0], width, 4, tmp_path, "cpu")
    assert gaps.trainer == 0.0 and gaps.sampler < 1e-4 and gaps.gradient < 1e-3


def test_a_wrong_policy_is_far_off(family_policy):
    exact = {"a": torch.tensor([3.0, 4.0])}
    assert checks.distance({"a": torch.tensor([3.0, 3.5])}, exact) == pytest.approx(0.1)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:The dirpath has changed")  # `validate` has a folder of its own
def test_the_commands_run(tokenizer, tmp_path):
    assert checks.resumes(tokenizer, tmp_path, "cpu")
    (row,) = [row for row in checks.fit_default(tmp_path, "cpu", *SMALL) if "train/valid_box_ratio" in row]
    assert row["train/sampler_gap"] < 1e-4
    checks.validate_default(tmp_path, "cpu", *SMALL)
    (pictures := tmp_path / "pictures").mkdir()
    assert checks.predict_default(make_pictures(pictures, 2), tmp_path / "rows.jsonl") == 2
