"""The training loop in process, on random weights and small scenes."""

import copy

import lightning as L
import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint

from mgpo.data.module import Sample, VQAData
from mgpo.data.scenes import Scenes
from mgpo.groups import mini_batches
from mgpo.module import MGPO
from mgpo.objective import Objective
from mgpo.sampler import Sampling
from tests.conftest import make_policy, make_question


class Noisy(MGPO):
    """Judges a trajectory by its ids, so that groups of a random policy have a signal."""

    def roll_out(self, samples, step, copies=None):
        trajectories = super().roll_out(samples, step, copies)
        for trajectory in trajectories:
            trajectory.reward = float(trajectory.turns[0].reply.ids[0] % 2)
        return trajectories


def make(tokenizer, cls=Noisy, **options):
    options = {"group_size": 4, "sampling": Sampling(max_new_tokens=6), "optimizer": adam, **options}
    return cls(make_policy(tokenizer).train(), **options)


def adam(parameters):
    return torch.optim.AdamW(parameters, lr=1e-3, weight_decay=0.0)


def fit(module, tmp_path, questions=8, ckpt_path=None, **options):
    data = VQAData(train=Scenes(questions, side=128), batch_size=2, num_workers=0)
    trainer = L.Trainer(
        accelerator="cpu", max_epochs=1, logger=False, enable_progress_bar=False, enable_model_summary=False,
        default_root_dir=tmp_path, use_distributed_sampler=False, limit_val_batches=0, log_every_n_steps=1, **options,
    )  # fmt: skip
    trainer.fit(module, data, ckpt_path=ckpt_path, weights_only=True if ckpt_path else None)
    return trainer


def weights(module):
    return {name: p.detach().clone() for name, p in module.policy.named_parameters()}


def equal(a, b):
    return all(torch.equal(a[name], b[name]) for name in a)


def test_fit_moves_the_weights_and_logs(tokenizer, tmp_path):
    module = make(tokenizer)
    before = weights(module)
    trainer = fit(module, tmp_path, enable_checkpointing=False)
    assert trainer.global_step == 4
    assert not equal(before, weights(module))
    logged = trainer.callback_metrics
    assert {"train/reward", "train/valid_box", "train/no_signal", "train/entropy_turn1", "train/entropy_turn2"} <= set(
        logged
    )
    assert logged["train/sampler_gap"] < 1e-4
    assert logged["train/clip_fraction"] == 0


def test_groups_without_signal_change_nothing(tokenizer, tmp_path):
    """Invariant: equal rewards, no gradient. A random policy never answers, so every reward is 0."""
    module = make(tokenizer, MGPO)
    before = weights(module)
    trainer = fit(module, tmp_path, enable_checkpointing=False)
    assert trainer.callback_metrics["train/no_signal"] == 1
    assert equal(before, weights(module))


def test_every_mini_batch_and_epoch_is_an_update(tokenizer, tmp_path):
    module = make(tokenizer, mini_batches=2, epochs=3)
    trainer = fit(module, tmp_path, questions=4, enable_checkpointing=False)
    assert trainer.global_step == 2 * 2 * 3


def test_micro_batches_change_memory_only(tokenizer, tmp_path):
    results = []
    for size in (64, 3):
        module = make(tokenizer, micro_batch_size=size, optimizer=lambda p: torch.optim.SGD(p, lr=0.1))
        fit(module, tmp_path, questions=2, enable_checkpointing=False)
        results.append(weights(module))
    for name in results[0]:
        assert torch.allclose(results[0][name], results[1][name], atol=1e-6), name


def test_kl_holds_the_policy_near_its_reference(tokenizer, tmp_path):
    module = make(tokenizer, objective=Objective(kl_weight=0.1))
    module.references = [copy.deepcopy(module.policy).requires_grad_(False)]
    trainer = fit(module, tmp_path, enable_checkpointing=False)
    assert trainer.callback_metrics["train/kl"] > 0


def test_a_resumed_run_equals_an_uninterrupted_one(tokenizer, tmp_path):
    """Bit for bit: order of questions, draws, optimiser state and weights."""
    whole = make(tokenizer)
    saver = ModelCheckpoint(tmp_path, filename="{step}", every_n_train_steps=2, save_top_k=-1)
    fit(whole, tmp_path, callbacks=[saver])
    again = make(tokenizer)
    fit(again, tmp_path, ckpt_path=str(tmp_path / "step=2.ckpt"), enable_checkpointing=False)
    assert equal(weights(whole), weights(again))


def test_undecodable_samples_are_left_out(tokenizer):
    module = make(tokenizer)
    said = []
    module.print = said.append
    question = make_question(None, "broken")
    bad = Sample(question, None, "broken.png: the image is damaged")
    assert module.usable([bad, bad]) == []
    assert said == ["left out: question broken, broken.png: the image is damaged"]


def test_mini_batches_holdmini_batches():
    parts = mini_batches(5, 4, 2, (0, 1, 0))
    assert sorted(i for part in parts for i in part) == list(range(20))
    for part in parts:
        assert all(part[i : i + 4] == list(range(part[i], part[i] + 4)) for i in range(0, len(part), 4))
    assert mini_batches(2, 2, 1, (0,)) == [[0, 1, 2, 3]]


def test_a_group_of_one_is_refused(tokenizer):
    with pytest.raises(ValueError, match="at least 2"):
        make(tokenizer, group_size=1)
