"""The shipped base model is where the paper starts: it reads what it sees, and rarely says well where to look."""

import warnings

import numpy as np
import pytest
import torch

from mgpo.data.scenes import Scenes
from mgpo.dialogues import SingleTurn, TwoTurn, answer_only
from mgpo.evaluation.greedy import evaluate
from mgpo.images.boxes import BoxRule
from mgpo.images.views import View
from mgpo.policy.families.qwen2_5_vl import Qwen25VL
from mgpo.policy.passes.batch import collate
from mgpo.policy.passes.logprobs import score
from mgpo.rewards import ExactAnswer
from mgpo.rollout.episodes import roll_out
from mgpo.rollout.in_process import InProcessSampler, Sampling
from mgpo.world.model import CAPS
from mgpo.world.questions import KINDS, sample_question
from mgpo.world.teacher import teacher_box

N = 128
TWO_TURN = TwoTurn(rule=BoxRule(min_side=20))  # as in configs/mgpo.yaml


@pytest.fixture(scope="module")
def base():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return Qwen25VL(**CAPS).load().eval()


@pytest.fixture(scope="module")
def samples():
    source = Scenes(N, split="val", seed=1)
    return [(source[i], source[i].picture.load()) for i in range(N)]


@pytest.fixture(scope="module")
def rollouts(base):
    source = Scenes(N, KINDS, split="val", seed=1)
    mixed = [(source[i], source[i].picture.load()) for i in range(N)]
    return roll_out(base, InProcessSampler(), TWO_TURN, mixed, 4, Sampling(32), (0, 0))


def test_weights_are_small_and_safe(base):
    from pathlib import Path

    files = list(Path(base.path).iterdir())
    assert sum(file.stat().st_size for file in files) <= 6_000_000
    assert {file.suffix for file in files} <= {".safetensors", ".json", ".jinja"}


def test_boxes_are_valid_in_a_third_to_three_fifths_of_rollouts(rollouts):
    valid = sum(t.parsed_box.box is not None for t in rollouts) / len(rollouts)
    assert 0.30 <= valid <= 0.60


def test_two_turn_accuracy_is_low(base, samples):
    records = evaluate(base, InProcessSampler(), TWO_TURN, samples, Sampling(32, 0), ExactAnswer(), 0)
    assert sum(r.right for r in records) / N <= 0.55


def test_it_reads_the_right_crop(base, samples):
    crops = []
    for i, (question, image) in enumerate(samples):
        _, marks = sample_question("attribute", (2, 1, i), 2048, "val")
        box = teacher_box(marks, 112, "good", np.random.default_rng(0))
        crops.append(
            (question, image.crop(View.full(image.size, base.resolution.full).crop(box, base.resolution.crop).region))
        )
    resolution = type(base.resolution)(base.resolution.frame, base.resolution.crop, base.resolution.crop)
    read = roll_out(base, InProcessSampler(), answer_only(), crops, 1, Sampling(32, 0), (0,), resolution=resolution)
    right = sum(ExactAnswer()(t.answer, t.question) for t in read) / N
    assert right >= 0.90


def test_without_a_crop_it_guesses(base, samples):
    records = evaluate(base, InProcessSampler(), SingleTurn(), samples, Sampling(40, 0), ExactAnswer(), 0)
    assert sum(r.right for r in records) / N <= 0.20


def test_sampler_and_trainer_agree_on_real_weights(base, rollouts):
    batch = collate(rollouts[:64], base.positions, base.pad_id)
    with torch.no_grad():
        gap = (score(base, batch).logprobs_NC - batch.sampled_logprobs_NC)[batch.policy_NC].abs()
    for turn in (0, 1):
        assert gap[batch.turn_NC[batch.policy_NC] == turn].max() <= 1e-4
