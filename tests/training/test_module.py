"""The training loop in process, on random weights and small scenes."""

import copy
import inspect

import lightning as L
import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from torch.utils.data import DataLoader

from mgpo.callbacks import LastCheckpoint
from mgpo.data.module import VQAData
from mgpo.data.scenes import Scenes
from mgpo.errors import UserError
from mgpo.objective import Objective, surrogates
from mgpo.policy.lora import Lora
from mgpo.rollout.in_process import Sampling
from mgpo.training.groups import Groups, mini_batches
from mgpo.training.loop_settings import check_precision
from mgpo.training.module import MGPO
from mgpo.training.step_metrics import PassMetrics, Tally
from tests.conftest import make_policy


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


def fit(module, tmp_path, questions=8, ckpt_path=None, accelerator="cpu", side=128, **options):
    data = VQAData(train=Scenes(questions, side=side), batch_size=2, num_workers=0)
    options = {"enable_progress_bar": False, "logger": False, **options}
    trainer = L.Trainer(
        accelerator=accelerator, devices=1, enable_model_summary=False, default_root_dir=tmp_path,
        use_distributed_sampler=False, limit_val_batches=0, log_every_n_steps=1, **{"max_epochs": 1, **options},
    )  # fmt: skip
    trainer.fit(module, data, ckpt_path=ckpt_path, weights_only=True if ckpt_path else None)
    return trainer


def watch(module):
    """The metrics of every step, as they are published."""
    steps = []
    publish = module.publish
    module.publish = lambda: steps.append(module.tally.over_ranks(1)) or publish()
    return steps


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
    assert {
        "train/reward",
        "train/valid_box_ratio",
        "train/constant_reward",
        "train/entropy_turn1",
        "train/entropy_turn2",
    } <= set(logged)
    assert logged["train/sampler_gap"] < 1e-4
    assert logged["train/clip_fraction"] == 0


def test_curves_of_tokens_do_not_depend_on_how_they_are_dealt_out(tokenizer, tmp_path):
    """Nor, but for the penalty's own, on whether rollouts without an advantage are passed because of a penalty."""
    curves = []
    for options in ({}, {"micro_batch_tokens": 64}, {"objective": Objective(), "micro_batch_tokens": 200}):
        module = make(tokenizer, **{"objective": Objective(kl_weight=0.05), **options})
        module.references = [copy.deepcopy(module.policy).requires_grad_(False).eval()]
        steps = watch(module)
        fit(module, tmp_path, enable_checkpointing=False)
        shown = ("kl", "kl_clamped", "entropy_turn1", "entropy_turn2", "clip_fraction")
        curves.append([{name: step[name] for name in shown if name in step} for step in steps])
    whole, parts, unpenalised = curves
    assert [step["kl"] for step in whole][-1] > 0
    for one, other in zip(whole, parts, strict=True):
        assert other == pytest.approx(one, rel=1e-3, abs=1e-6)
    first = {name: value for name, value in whole[0].items() if "kl" not in name}
    assert unpenalised[0] == pytest.approx(first, rel=1e-5)


def test_the_learning_rate_is_a_curve_of_its_updates(tokenizer, tmp_path):
    """Two updates a step, each at its own rate."""
    module = make(tokenizer, mini_batches=2, lr_scheduler=lambda o: torch.optim.lr_scheduler.StepLR(o, 1, gamma=0.5))
    steps = watch(module)
    trainer = fit(module, tmp_path, enable_checkpointing=False)
    assert [step["lr"] for step in steps] == pytest.approx([1e-3 * (0.5 ** (2 * i)) * 0.75 for i in range(4)])
    assert trainer.callback_metrics["train/lr"] == pytest.approx(steps[-1]["lr"])


def test_groups_are_told_by_their_size(tokenizer, tmp_path):
    trainer = fit(make(tokenizer, group_size=2), tmp_path, enable_checkpointing=False)
    assert {"train/pass@2", "train/majority@2"} <= trainer.callback_metrics.keys()


@pytest.mark.parametrize(
    ("precision", "better"), [("bf16-true", "bfloat16"), ("16-mixed", "bf16-mixed"), ("64-true", "32-true")]
)
def test_a_precision_that_would_not_learn_is_refused_in_a_sentence(precision, better):
    with pytest.raises(UserError, match=better):
        check_precision(precision)
    for sound in ("32-true", "bf16-mixed"):
        check_precision(sound)


def test_fit_refuses_a_trainer_that_cannot_be_before_anything_is_loaded(tokenizer, tmp_path):
    module = make(tokenizer)
    module.policy.model, loaded = None, []
    module.policy.load = lambda: loaded.append(True)
    with pytest.raises(UserError, match="bf16-true"):
        fit(module, tmp_path, precision="bf16-true", enable_checkpointing=False)
    with pytest.raises(UserError, match="overfit_batches is 2"):
        fit(module, tmp_path, overfit_batches=2, enable_checkpointing=False)
    assert not loaded


def test_the_surrogate_is_four_calls_below_training_step(tokenizer, tmp_path, monkeypatch):
    """training_step, loss, policy_loss, Objective.losses, ppo_loss: whoever reads the algorithm finds its minimum."""
    stacks = []

    def minimum(*args):
        stacks.append([frame.function for frame in inspect.stack()[1:]])
        return torch.min(*args)

    monkeypatch.setattr(surrogates.torch, "minimum", minimum)
    fit(make(tokenizer), tmp_path, questions=2, enable_checkpointing=False)
    monkeypatch.undo()
    assert stacks
    for stack in stacks:
        ours = stack[: stack.index("training_step") + 1]
        assert len(ours) <= 5, ours


def test_every_mini_batch_and_epoch_is_an_update(tokenizer, tmp_path):
    module = make(tokenizer, mini_batches=2, epochs=3)
    trainer = fit(module, tmp_path, questions=4, enable_checkpointing=False)
    assert trainer.global_step == 2 * 2 * 3


def test_micro_batches_change_memory_only(tokenizer, tmp_path):
    results = []
    for tokens in (10_000, 150):
        module = make(tokenizer, micro_batch_tokens=tokens, optimizer=lambda p: torch.optim.SGD(p, lr=0.1))
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


def test_a_fit_that_begins_anew_counts_from_0(tokenizer, tmp_path):
    """Whatever the weights have seen before."""
    module, seen = make(tokenizer), []
    module.loaded_step = 200
    module.on_train_start = lambda: seen.append(module.step)
    trainer = fit(module, tmp_path)
    assert seen == [0] and module.step == trainer.global_step
    (saved,) = tmp_path.rglob("*.ckpt")
    fit(module, tmp_path, ckpt_path=saved, max_epochs=2, enable_checkpointing=False)
    assert seen == [0, trainer.global_step]


def test_a_checkpoint_comes_though_an_update_was_left_out(tokenizer, tmp_path):
    """Two updates a step, of which the third is not finite: no step ends at a multiple of four any more."""

    class Skipping(Noisy):
        left = False

        def loss(self, part):
            loss, metrics = super().loss(part)
            now, self.left = self.global_step == 2 and not self.left, self.left or self.global_step == 2
            return (loss * torch.nan if now else loss), metrics

    saver = LastCheckpoint(dirpath=tmp_path, filename="{step}", every_n_train_steps=4, save_top_k=-1)
    trainer = fit(make(tokenizer, Skipping, mini_batches=2), tmp_path, callbacks=[saver])
    assert trainer.global_step % 2 == 1
    saved = sorted(int(path.stem.removeprefix("step=")) for path in tmp_path.glob("*.ckpt"))
    assert saved == [n for n in range(5, trainer.global_step + 1, 2) if n // 4 > (n - 2) // 4]
    assert saved


def test_mini_batches_hold_whole_groups():
    parts = mini_batches(constant(5, 4), 2, (0, 1, 0))
    assert sorted(i for part in parts for i in part) == list(range(20))
    for part in parts:
        assert all(part[i : i + 4] == list(range(part[i], part[i] + 4)) for i in range(0, len(part), 4))
    assert mini_batches(constant(2, 2), 1, (0,)) == [[0, 1, 2, 3]]


def constant(questions, size):
    return Groups([], torch.zeros(questions, size), torch.ones(questions, size, dtype=torch.bool))


@pytest.mark.parametrize(
    ("options", "said"),
    [(dict(group_size=1), "at least 2"), (dict(epochs=0), "epochs"), (dict(max_grad_norm=-1.0), "max_grad_norm"),
     (dict(max_grad_norm=0.0), "above 0"), (dict(max_grad_norm=float("nan")), "above 0"),
     (dict(micro_batch_tokens=0), "micro_batch_tokens"),
     (dict(sampling=Sampling(temperature=0)), "temperature"), (dict(answer_form="K"), "slot")],
)  # fmt: skip
def test_impossible_options_are_refused(tokenizer, options, said):
    with pytest.raises(ValueError, match=said):
        make(tokenizer, **options)


def test_extras_are_for_training_only(tokenizer, tmp_path):
    module = make(tokenizer, shaping=[lambda trajectory: 10.0])
    source = Scenes(2, side=128)
    judged = module.roll_out([(source[i], source[i].picture.load()) for i in range(2)], 0)
    assert all(trajectory.reward < 10 for trajectory in judged)
    steps = watch(module)
    fit(module, tmp_path, questions=2, enable_checkpointing=False)
    assert steps[0]["reward"] >= 10
    assert steps[0]["accuracy"] <= 1


def test_a_tally_weighs_what_it_is_given():
    tally = Tally()
    tally.add({"a": 1.0}, 1)
    tally.add({"a": 4.0, "b": 2.0}, 2)
    for gap in (1.0, 3.0, 2.0):
        tally.add_pass(PassMetrics(largest={"gap": torch.tensor(gap)}))
    assert tally.over_ranks(1) == {"a": 3.0, "b": 2.0, "gap": 3.0}


@pytest.mark.parametrize("action", ["fit", "validate", "test"])
def test_loaders_are_refused_in_a_sentence(tokenizer, tmp_path, action):
    """They would know neither where a run goes on nor how large pictures are seen."""
    loader = DataLoader(Scenes(4, side=128), batch_size=2, collate_fn=list)
    trainer = L.Trainer(
        accelerator="cpu", max_epochs=1, logger=False, enable_checkpointing=False, default_root_dir=tmp_path
    )
    with pytest.raises(UserError, match=rf"^trainer\.{action}: questions come from a mgpo\.data\.VQAData"):
        getattr(trainer, action)(make(tokenizer), *([loader] * (1 + (action == "fit"))))


def test_gradients_that_an_earlier_fit_left_are_dropped(tokenizer, tmp_path):
    """As an update leaves them that is broken off. Lightning drops them."""
    ends = []
    for left in (False, True):
        module = make(tokenizer)
        for parameter in module.policy.parameters() if left else ():
            parameter.grad = torch.ones_like(parameter)
        fit(module, tmp_path, questions=2, enable_checkpointing=False)
        ends.append(weights(module))
    assert equal(*ends)


def test_with_adapters_the_reference_is_the_base(tokenizer, tmp_path):
    """No frozen copy; before the first update the divergence is zero, and only adapters move."""
    policy = make_policy(tokenizer, lora=Lora(rank=2, alpha=4)).train()
    module = Noisy(
        policy, group_size=4, sampling=Sampling(max_new_tokens=6), optimizer=adam, objective=Objective(kl_weight=0.1)
    )
    before = weights(module)
    steps = watch(module)
    fit(module, tmp_path, enable_checkpointing=False)
    divergences = [step["kl"] for step in steps if "kl" in step]
    assert module.references == []
    assert divergences[0] == pytest.approx(0, abs=1e-6)
    assert divergences[-1] > 1e-6
    changed = {name for name, value in weights(module).items() if not torch.equal(value, before[name])}
    assert changed and all("lora_" in name for name in changed)
