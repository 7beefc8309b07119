"""The shipped base model is where the paper starts: it reads what it sees, and rarely says well where to look."""

import warnings
from pathlib import Path

import pytest
import torch

from mgpo.data.scenes import Scenes
from mgpo.policy.families.qwen2_5_vl import Qwen25VL
from mgpo.policy.passes.batch import collate
from mgpo.policy.passes.logprobs import score
from mgpo.rollout.episodes import roll_out
from mgpo.rollout.in_process import InProcessSampler, Sampling
from mgpo.tools.pretrain.bounds import BOUNDS, HANDWRITTEN_BOUNDS, TWO_TURN, measure, outside
from mgpo.world.model import CAPS
from mgpo.world.questions import KINDS
from tests.test_cli import ROOT


@pytest.fixture(scope="module")
def base():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return Qwen25VL(**CAPS).load().eval()


@pytest.fixture(scope="module")
def measured(base):
    return measure(base)


@pytest.mark.parametrize("folder", [Path(Qwen25VL().path), *(ROOT / "results/bases").iterdir()], ids=lambda f: f.name)
def test_weights_are_small_and_safe(folder):
    files = list(folder.iterdir())
    assert sum(file.stat().st_size for file in files) <= 6_000_000
    assert {file.suffix for file in files} <= {".safetensors", ".json", ".jinja"}


@pytest.mark.parametrize("share", BOUNDS)
def test_the_base_is_within_its_bounds(measured, share):
    low, high = BOUNDS[share]
    assert low <= measured[share] <= high


@pytest.mark.slow
@pytest.mark.parametrize("folder", sorted((ROOT / "results/bases").iterdir()), ids=lambda folder: folder.name)
def test_the_studys_other_bases_are_within_them_too(folder):
    handwritten = folder.name == "handwriting"
    found = measure(Qwen25VL(path=str(folder), **CAPS).load().eval(), handwritten=handwritten)
    assert outside(found, HANDWRITTEN_BOUNDS if handwritten else BOUNDS) == []


def test_what_is_outside_its_bounds_is_named(measured):
    assert outside(measured) == []
    (phrase,) = outside({**measured, "the right crop read": 0.5})
    assert phrase == "the right crop read 0.50 (wanted 0.90 to 1.00)"


def test_sampler_and_trainer_agree_on_real_weights(base):
    source = Scenes(16, KINDS, split="val", seed=1)
    samples = [(question, question.picture.load()) for question in (source[i] for i in range(16))]
    rollouts = roll_out(base, InProcessSampler(), TWO_TURN, samples, 4, Sampling(32), (0, 0))
    batch = collate(rollouts, base.positions, base.pad_id)
    with torch.no_grad():
        gap = (score(base, batch).logprobs_NC - batch.sampled_logprobs_NC)[batch.policy_NC].abs()
    for turn in (0, 1):
        assert gap[batch.turn_NC[batch.policy_NC] == turn].max() <= 1e-4
