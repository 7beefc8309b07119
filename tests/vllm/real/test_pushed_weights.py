"""The real engine has the trainer's weights: pushed, merged, in another process, and over the steps of a fit."""

import copy
from contextlib import closing

import lightning as L
import pytest
import torch

from mgpo.data.module import VQAData
from mgpo.data.scenes import Scenes
from mgpo.objective import Objective
from mgpo.policy.lora import Lora
from mgpo.rollout.in_process import Sampling
from mgpo.training.module import MGPO
from mgpo.types import Prompt
from mgpo.vllm import ServedVLLMSampler
from tests.vllm.real.conftest import OPTIONS, gaps, ids_of, load, rollouts

pytest.importorskip("vllm", reason="vLLM is not installed")
pytestmark = [pytest.mark.vllm, pytest.mark.filterwarnings("default")]


@pytest.mark.parametrize("trained", ["bfloat16", "float32"])
def test_half_precision(engine, samples, trained):
    """Of both, or of the engine alone, as under mixed precision."""
    engine.dtype = "bfloat16"
    policy = load(dtype=trained)
    gap = torch.cat(gaps(policy, rollouts(policy, engine, samples)))
    assert 1e-5 < gap.mean() < 2e-2


def test_pushed_weights_are_those_that_sample(policy, fresh, sampler, samples):
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in fresh.parameters():
            parameter.mul_(1 + 0.1 * torch.randn_like(parameter))
    played = rollouts(fresh, sampler, samples)
    assert max(gap.max() for gap in gaps(fresh, played)) < 1e-3
    assert all(gap.mean() > 0.01 for gap in gaps(policy, played))


def test_what_has_changed_is_pushed_without_a_release(policy, sampler, trajectories, samples):
    """Another policy, and weights that are changed in place, as in a notebook."""
    assert ids_of(rollouts(policy, sampler, samples)) == ids_of(trajectories)
    changed = copy.deepcopy(policy)
    for _ in range(2):
        with torch.no_grad():
            for parameter in changed.parameters():
                parameter.mul_(1.1)
        drawn = rollouts(changed, sampler, samples)
        assert ids_of(drawn) != ids_of(trajectories)
        assert max(gap.max() for gap in gaps(changed, drawn)) < 1e-3
    assert ids_of(rollouts(policy, sampler, samples)) == ids_of(trajectories)


def test_a_reply_that_nobody_takes_to_its_end_is_not_the_next_ones(policy, sampler):
    """Its generator may be held, as by a traceback."""
    prompt = Prompt(tuple(policy.chat.encode_text("What is there?")))

    def replies():
        return dict(sampler.open(policy, [prompt], 2).reply([7, 8], Sampling(8)))

    expected = replies()
    held = sampler.open(policy, [prompt], 4).reply(range(4), Sampling(64, 2.0))
    next(held)
    assert replies() == expected and expected.keys() == {0, 1}


def test_adapters_are_merged_into_what_is_pushed(policy, fresh, sampler, samples):
    adapted = load(lora=Lora(rank=4, vision=True))
    torch.manual_seed(1)
    for name, parameter in adapted.model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.05)
    played = rollouts(adapted, sampler, samples)
    assert max(gap.max() for gap in gaps(adapted, played)) < 1e-3
    assert gaps(policy, played)[0].mean() > 0.01


@pytest.fixture(scope="module")
def served():
    with closing(ServedVLLMSampler(options=OPTIONS)) as served:
        yield served


def test_in_a_process_of_its_own_it_says_the_same(policy, served, trajectories, samples):
    played = rollouts(policy, served, samples)
    assert ids_of(played) == ids_of(trajectories)
    assert max(gap.max() for gap in gaps(policy, played)) < 1e-3


def test_there_it_may_have_several_workers(policy, samples):
    """Each takes its part of what is pushed; the tower, whose heads can't be dealt to two, is whole in both."""
    changed = copy.deepcopy(policy)
    options = {**OPTIONS, "tensor_parallel_size": 2, "mm_encoder_tp_mode": "data"}
    with closing(ServedVLLMSampler(options=options)) as sampler:
        for _ in range(2):
            assert max(gap.max() for gap in gaps(changed, rollouts(changed, sampler, samples))) < 1e-3
            with torch.no_grad():
                for parameter in changed.parameters():
                    parameter.mul_(1.1)


def test_what_the_trainer_saw_goes_there_too(served, samples):
    frozen = load(freeze_vision=True)
    served.release()
    played = rollouts(frozen, served, samples)
    served.release()
    assert len(frozen.seen.kept) > 0 and max(gap.max() for gap in gaps(frozen, played)) < 1e-3


def test_weights_go_to_the_other_process(policy, served, samples):
    other = copy.deepcopy(policy)
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.mul_(1 + 0.1 * torch.randn_like(parameter))
    served.release()
    played = rollouts(other, served, samples)
    served.release()
    assert max(gap.max() for gap in gaps(other, played)) < 1e-3
    assert all(gap.mean() > 0.01 for gap in gaps(policy, played))


def test_what_goes_wrong_there_is_told_here_and_ends_nothing(policy, served, samples, trajectories):
    prompt = trajectories[0].turns[0].prompt
    with pytest.raises(RuntimeError, match=r"the engine says: .*longer than the maximum model length"):
        list(served.open(policy, [Prompt(prompt.ids * 300, prompt.images * 300)], 1).reply([0], Sampling(4)))
    assert ids_of(rollouts(policy, served, samples[:1])) == ids_of(trajectories[:4])


def fit(sampler, tmp_path, policy=None, **options):
    """The metrics of three steps on two questions each, with an evaluation before and after them."""
    module = MGPO(
        policy or load().train(), sampler=sampler, group_size=4, sampling=Sampling(max_new_tokens=24), mini_batches=2,
        optimizer=lambda p: torch.optim.AdamW(p, lr=3e-4), **options,
    )  # fmt: skip
    steps = []
    publish = module.publish
    module.publish = lambda: steps.append(module.tally.over_ranks(1)) or publish()
    trainer = L.Trainer(
        accelerator="cpu", max_epochs=1, logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, use_distributed_sampler=False, limit_val_batches=2, default_root_dir=tmp_path,
    )  # fmt: skip
    data = VQAData(train=Scenes(6, side=1024), val=[Scenes(4, side=1024, split="val")], batch_size=2, num_workers=0)
    trainer.fit(module, data)
    assert "val/accuracy" in trainer.callback_metrics
    return trainer.global_step, steps


@pytest.mark.parametrize("freeze_vision", [False, True])
def test_fit_learns_from_it_and_logs_the_gap(engine, tmp_path, freeze_vision):
    policy = load(freeze_vision=freeze_vision).train()
    updates, steps = fit(engine, tmp_path, policy, objective=Objective(kl_weight=0.01))
    assert (updates, len(steps)) == (6, 3)
    for step in steps:  # each under the weights of its own time
        assert step["engine_gap_max"] < 1e-3 and step["engine_truncated"] == 0


def test_ahead_of_its_step_a_rollout_is_one_step_old(tmp_path):
    """The first step has nothing to learn from; the second's rollouts are of its own weights, the third's are not."""
    with closing(ServedVLLMSampler(ahead=True, options=OPTIONS)) as sampler:
        updates, steps = fit(sampler, tmp_path)
    assert (updates, len(steps)) == (4, 3)
    assert "engine_gap" not in steps[0]
    assert steps[1]["engine_gap_max"] < 1e-3 < steps[2]["engine_gap_max"]
