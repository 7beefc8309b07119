"""The checks before the first step of a run."""

import re

import lightning as L
import pytest
import torch

from mgpo.data.module import VQAData
from mgpo.data.scenes import Scenes
from mgpo.errors import UserError
from mgpo.rollout.in_process import Sampling
from mgpo.tools.doctor.case import Result
from mgpo.tools.doctor.preflight import Preflight, verdict
from tests.tools.test_doctor_mistakes import linear_positions
from tests.training.test_module import equal, fit, make, weights


def test_a_fit_with_preflight_equals_one_without(tokenizer, tmp_path, capsys):
    """Weights, optimiser and random numbers, bit for bit."""
    ends = []
    for callbacks in ([], [Preflight()]):
        torch.manual_seed(3)
        module = make(tokenizer)
        trainer = fit(module, tmp_path, questions=4, callbacks=callbacks, enable_checkpointing=False)
        states = list(trainer.optimizers[0].state_dict()["state"].values())
        ends.append((weights(module), states, torch.get_rng_state()))
    (first, states, draws), (second, others, again) = ends
    assert equal(first, second)
    assert torch.equal(draws, again)
    assert len(states) == len(others)
    assert all(torch.equal(a[key], b[key]) for a, b in zip(states, others) for key in a)
    assert re.search(r"preflight: \d+ checks passed, skipped: memory", capsys.readouterr().out)


def test_a_failure_stops_a_fit_unless_it_is_to_warn(tokenizer, tmp_path, monkeypatch, capsys):
    module = make(tokenizer)
    linear_positions(module.policy, monkeypatch)
    with pytest.raises(UserError, match=r"^preflight: trainer = stock model failed \(and positions\): .*--preflight"):
        fit(module, tmp_path, questions=2, callbacks=[Preflight()], enable_checkpointing=False)
    assert module.global_step == 0
    trainer = fit(module, tmp_path, questions=2, callbacks=[Preflight("warn")], enable_checkpointing=False)
    assert trainer.global_step == 1
    assert "FAILED" in capsys.readouterr().out


def test_preflight_comes_before_an_evaluation_that_precedes_training(tokenizer, tmp_path, monkeypatch):
    module = make(tokenizer, eval_sampling=Sampling(6, 0))
    data = VQAData(Scenes(4, side=128), [Scenes(2, side=128, split="val")], num_workers=0)
    trainer = L.Trainer(
        accelerator="cpu", default_root_dir=tmp_path, logger=False, callbacks=[Preflight()], enable_progress_bar=False
    )
    trainer.validate(module, data, verbose=False)
    linear_positions(module.policy, monkeypatch)
    trainer.callbacks[0].done = False
    with pytest.raises(UserError, match="positions"):
        trainer.validate(module, data, verbose=False)
    trainer.callbacks[0].done = False
    module.make_optimizer = lambda weights: torch.optim.SGD(weights, lr=-1.0)
    with pytest.raises(UserError, match="optimizer fails: ValueError: Invalid learning rate"):
        trainer.validate(module, data, verbose=False)


def test_the_verdict_is_one_sentence():
    said = verdict([Result("positions", False, "3 tokens stand elsewhere"), Result("length", False, "too long")])
    assert said.startswith("preflight: positions failed (and length): 3 tokens stand elsewhere; ")
    assert "\n" not in said
