"""The shipped model and a real engine that has its weights."""

import copy
from contextlib import closing

import pytest
import torch

from mgpo.data.scenes import Scenes
from mgpo.dialogues import TwoTurn
from mgpo.policy.families.qwen2_5_vl import Qwen25VL
from mgpo.policy.passes.batch import collate
from mgpo.policy.passes.logprobs import score
from mgpo.rollout.episodes import roll_out
from mgpo.rollout.in_process import Sampling
from mgpo.vllm import VLLMSampler
from mgpo.world.model import CAPS

BLOCK = 32  # tokens of the prefix cache that are kept or computed together
OPTIONS = {"block_size": BLOCK}


def load(**options):
    return Qwen25VL(**CAPS, **options).load().eval()


@pytest.fixture
def engine(sampler):
    """Makes another engine; a process holds one at a time."""
    sampler.close()
    with closing(VLLMSampler(options=OPTIONS)) as another:
        yield another


@pytest.fixture(scope="module")
def policy():
    """The shipped model, as the engine of `sampler` has it; tests that change weights take `fresh`."""
    return load()


@pytest.fixture(scope="module")
def sampler():
    with closing(VLLMSampler(options=OPTIONS)) as sampler:
        yield sampler


@pytest.fixture
def fresh(policy, sampler):
    """A copy whose weights go to the engine at once; afterwards those of `policy` do."""
    sampler.release()
    yield copy.deepcopy(policy)
    sampler.release()


@pytest.fixture(scope="module")
def samples():
    scenes = Scenes(6, side=1024, kinds=("attribute", "attribute_choice"))
    return [(question, question.picture.load()) for question in (scenes[i] for i in range(len(scenes)))]


def rollouts(policy, sampler, samples, copies=4, temperature=1.0, key=(0, 0)):
    return roll_out(policy, sampler, TwoTurn(), samples, copies, Sampling(32, temperature), key)


def gaps(policy, trajectories, temperature=1.0):
    """By turn: differences between the trainer's log-probs and those that came with the replies."""
    batch = collate(trajectories, policy.positions, policy.pad_id)
    with torch.no_grad():
        gap_NC = score(policy, batch, temperature).logprobs_NC - batch.sampled_logprobs_NC
    return [gap_NC[batch.policy_NC & (batch.turn_NC == k)].abs() for k in range(2)]


def ids_of(trajectories):
    return [tuple(turn.reply.ids for turn in t.turns) for t in trajectories]


@pytest.fixture(scope="module")
def trajectories(policy, sampler, samples):
    return rollouts(policy, sampler, samples)
