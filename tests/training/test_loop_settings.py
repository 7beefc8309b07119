"""What Lightning's own loop would do is refused by the names of the keys that do it here, before anything is loaded."""

from contextlib import nullcontext
from pathlib import Path

import lightning as L
import pytest
import torch
from lightning.pytorch.callbacks import StochasticWeightAveraging
from torch.optim.lr_scheduler import LinearLR, LRScheduler, OneCycleLR, ReduceLROnPlateau

from mgpo.cli import main
from mgpo.errors import UserError
from mgpo.policy.pretrained import Pretrained
from mgpo.training.loop_settings import check_gone_on
from tests.test_cli import ROOT
from tests.training.test_module import fit, make


def warm(optimizer, steps: int = 10) -> LRScheduler:
    return LinearLR(optimizer, 0.1, 1.0, steps)


def untold(optimizer):
    return warm(optimizer)


class Patient(ReduceLROnPlateau):
    """A schedule that somebody derived."""


REFUSED = {
    "--trainer.gradient_clip_val=1.0": "model.max_grad_norm",
    "--trainer.gradient_clip_val=0": "model.max_grad_norm",
    "--trainer.gradient_clip_algorithm=value": "model.max_grad_norm",
    "--trainer.accumulate_grad_batches=4": "model.micro_batch_tokens",
    "--trainer.callbacks+=lightning.pytorch.callbacks.EMAWeightAveraging": "take StochasticWeightAveraging",
    "--trainer.overfit_batches=2": "a data.train of few questions",
    "--trainer.callbacks+={class_path: lightning.pytorch.callbacks.GradientAccumulationScheduler, "
    "init_args: {scheduling: {0: 2}}}": "model.micro_batch_tokens",
    "--model.lr_scheduler={class_path: lightning.pytorch.cli.ReduceLROnPlateau, init_args: {monitor: val/accuracy}}": (
        "torch.optim.lr_scheduler.CosineAnnealingLR"
    ),
    "--model.optimizer=torch.optim.LBFGS": "LBFGS, which computes the loss several times in a step",
    "--model.lr_scheduler=tests.training.test_loop_settings.untold": "has to say what it gives: -> LRScheduler",
    "--model.lr_scheduler={class_path: tests.training.test_loop_settings.warm, init_args: {steps: 2}}": (
        "test_loop_settings.warm is a function and takes no init_args"
    ),
    "--model.lr_scheduler={class_path: tests.training.test_loop_settings.Patient}": "Patient, which waits for a metric",
}


@pytest.mark.parametrize("command", ["fit", "doctor"])
@pytest.mark.parametrize("option", REFUSED)
def test_flags_name_our_keys(option, command, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(Pretrained, "load", lambda policy: pytest.fail("weights were read"))
    with pytest.raises(SystemExit) as ended:
        main([command, "--config", str(ROOT / "configs" / "mgpo.yaml"), option])
    said = str(ended.value)
    assert REFUSED[option] in said and "\n" not in said and len(said) <= 600
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--trainer.callbacks.monitor=val/acc", "--trainer.callbacks.mode=max"], "EarlyStopping.monitor is val/acc"),
        (["--trainer.callbacks.monitor=mine/accuracy"], "the splits of data.val are val, ood; take val/accuracy"),
        (["--trainer.callbacks.monitor=train/loss", "--trainer.val_check_interval=400"], "an epoch has 160 steps"),
    ],
)
def test_what_never_comes_is_refused_before_the_first_evaluation(options, words, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(Pretrained, "load", lambda policy: pytest.fail("weights were read"))
    given = ["--trainer.callbacks+=lightning.pytorch.callbacks.EarlyStopping", *options]
    with pytest.raises(SystemExit) as ended:
        main(["fit", "--config", "mgpo", "--trainer.check_val_every_n_epoch=1", *given])
    assert words in str(ended.value)


def test_options_that_contradict_each_other_end_in_a_sentence(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit, match=r"^mgpo: .*enable_progress_bar=False.*callbacks list"):
        main(["fit", "--config", str(ROOT / "configs" / "mgpo.yaml"), "--trainer.enable_progress_bar=false"])


class Unmade(torch.optim.Optimizer):
    def __init__(self, weights):
        self.weights = weights

    def step(self, closure=None):
        pass


class Unended(torch.optim.lr_scheduler.LRScheduler):
    def __init__(self, optimizer):
        self.steps = 3


def test_a_schedule_that_waits_for_a_metric_is_refused_before_a_rollout(tokenizer, tmp_path):
    module = make(tokenizer, lr_scheduler=lambda optimizer: Patient(optimizer))
    module.roll_out = lambda *args, **options: pytest.fail("a rollout")
    with pytest.raises(UserError, match="goes by optimiser updates"):
        fit(module, tmp_path, questions=2, enable_checkpointing=False)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (dict(optimizer=lambda weights: torch.optim.SGD(weights, lr=-1.0)), "model.optimizer fails: ValueError: Inv"),
        (dict(optimizer=torch.optim.LBFGS), "model.optimizer is LBFGS"),
        (
            dict(optimizer=torch.optim.Adafactor, lr_scheduler=lambda o: OneCycleLR(o, 1.0, 9)),
            "model.lr_scheduler fails: ValueError: optimizer must support momentum",
        ),
        (dict(optimizer=lambda weights: None), "model.optimizer gives a NoneType, which is no torch"),
        (dict(optimizer=Unmade), r"model.optimizer gives a Unmade, which is no torch.*whose own __init__ was called"),
        (dict(lr_scheduler=lambda o: None), "model.lr_scheduler gives a NoneType, which is no torch"),
        (dict(lr_scheduler=Unended), "model.lr_scheduler gives a Unended, .*whose own __init__ was called"),
    ],
)
def test_an_optimiser_that_cannot_be_made_is_told_in_a_sentence(tokenizer, options, words):
    module = make(tokenizer, **options)
    with pytest.raises(UserError, match=words):
        module.configure_optimizers()


def test_a_schedule_that_has_ended_is_told_in_a_sentence(tokenizer, tmp_path):
    module = make(tokenizer, lr_scheduler=lambda optimizer: OneCycleLR(optimizer, 1e-3, 3, cycle_momentum=False))
    with pytest.raises(UserError, match=r"model\.lr_scheduler fails: ValueError: Tried to step 4 times"):
        fit(module, tmp_path, enable_checkpointing=False)


def test_a_list_of_shapings_is_a_list(tokenizer):
    with pytest.raises(UserError, match=r"model\.shaping is a list, such as \[max\]"):
        make(tokenizer, shaping=max)


def test_other_schedules_go_by_updates(tokenizer, tmp_path):
    module = make(tokenizer, lr_scheduler=lambda optimizer: torch.optim.lr_scheduler.StepLR(optimizer, 2, 0.1))
    trainer = fit(module, tmp_path, enable_checkpointing=False)
    assert trainer.optimizers[0].param_groups[0]["lr"] == pytest.approx(1e-3 * 0.1**2)


SCHEDULES = torch.optim.lr_scheduler


def step(optimizer, size=2):
    return SCHEDULES.StepLR(optimizer, size, 0.1)


@pytest.fixture
def saved(tokenizer, tmp_path):
    """A checkpoint of three steps."""
    path = str(tmp_path / "three.ckpt")
    trainer = fit(make(tokenizer, lr_scheduler=step), tmp_path, enable_checkpointing=False, max_steps=3)
    trainer.save_checkpoint(path)
    return path


@pytest.mark.parametrize(
    ("options", "what"),
    [
        (dict(optimizer=lambda w: torch.optim.SGD(w, lr=1e-3)), "optimizer"),
        (dict(lr_scheduler=None), "lr_scheduler"),
        (dict(lr_scheduler=lambda o: SCHEDULES.CosineAnnealingLR(o, 8)), "lr_scheduler"),
    ],
)
def test_going_on_takes_an_optimiser_and_schedule_of_the_same_kind(tokenizer, tmp_path, saved, options, what):
    module = make(tokenizer, **{"lr_scheduler": step, **options})
    with pytest.raises(UserError, match=rf"the checkpoint's model\.{what} is of another kind"):
        fit(module, tmp_path, enable_checkpointing=False, max_steps=4, ckpt_path=saved)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (dict(optimizer=lambda w: torch.optim.AdamW(w, lr=1e-6, weight_decay=0.0)), "lr 0.001, not 1e-06; for that"),
        (dict(lr_scheduler=lambda o: step(o, 3)), "step_size 2, not 3; for that, begin a new run from its weights"),
        (dict(optimizer=lambda w: torch.optim.AdamW(w, lr=1e-3, weight_decay=0.0, foreach=True)), None),
    ],
)
def test_going_on_keeps_their_settings_and_says_so(tokenizer, tmp_path, saved, options, words):
    module = make(tokenizer, **{"lr_scheduler": step, **options})
    with pytest.warns(UserWarning, match=words) if words else nullcontext():
        trainer = fit(module, tmp_path, enable_checkpointing=False, max_steps=4, ckpt_path=saved)
    assert trainer.optimizers[0].param_groups[0]["lr"] == pytest.approx(1e-3 * 0.1**2)


@pytest.mark.parametrize("broken", [{}, {"param_groups": []}, {"param_groups": [3]}])
def test_a_checkpoint_that_does_not_say_how_it_was_trained(tokenizer, broken):
    made = make(tokenizer).configure_optimizers()
    with pytest.raises(UserError, match="does not say how its optimiser was set"):
        check_gone_on({"optimizer_states": [broken], "lr_schedulers": []}, made)


class SaveAtThree(L.Callback):
    def on_train_batch_end(self, trainer, pl_module, *rest):
        if trainer.global_step == 3:
            trainer.save_checkpoint(Path(trainer.default_root_dir) / "averaged.ckpt")


def test_averaged_weights_bring_their_own_schedule(tokenizer, tmp_path):
    def train(**options):
        averaging = StochasticWeightAveraging(1e-4, swa_epoch_start=1, annealing_epochs=1, device=None)
        module, callbacks = make(tokenizer, lr_scheduler=step), [averaging, SaveAtThree()]
        return fit(module, tmp_path, 2, callbacks=callbacks, enable_checkpointing=False, max_epochs=4, **options)

    assert train().global_step == train(ckpt_path=str(tmp_path / "averaged.ckpt")).global_step == 4
