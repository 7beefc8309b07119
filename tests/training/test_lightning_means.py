"""What Lightning's trainer has for everybody works here too: each of its means once, in process."""

from datetime import timedelta
from types import SimpleNamespace

import lightning as L
import pytest
import torch
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint
from lightning.pytorch.profilers import SimpleProfiler

from mgpo.checkpoints.resume import finished
from mgpo.data.module import VQAData
from mgpo.data.scenes import Scenes
from mgpo.errors import UserError
from mgpo.rollout.in_process import Sampling
from mgpo.training.validations import check_monitor, validates
from tests.conftest import make_record
from tests.training.test_module import make, watch

pytestmark = pytest.mark.filterwarnings("ignore:Checkpoint directory")


def train(module, folder, questions=8, ckpt_path=None, data=None, **options):
    """Four steps an epoch, a validation of two splits after every second."""
    val = [Scenes(3, side=128, split="val"), Scenes(2, side=128, split="ood")]
    data = data or VQAData(Scenes(questions, side=128), val, batch_size=2, num_workers=0)
    options = {"max_epochs": 1, "val_check_interval": 2, "logger": False, "enable_checkpointing": True, **options}
    trainer = L.Trainer(
        accelerator="cpu", default_root_dir=folder, enable_progress_bar=False, enable_model_summary=False,
        num_sanity_val_steps=0, use_distributed_sampler=False, log_every_n_steps=1, **options,
    )  # fmt: skip
    trainer.fit(module, data, ckpt_path=ckpt_path, weights_only=True if ckpt_path else None)
    return trainer


@pytest.fixture
def rising(monkeypatch):
    """Validations that get better, and then worse: 0, 2, 1, 0 of three are right."""
    shares = iter((0, 2, 1, 0))
    now = {}

    def play(rollouts, resolution, dialogue, samples, sampling, reward, seed, step, *rest):
        if step not in now:
            now[step] = next(shares)
        return [make_record(q.id, split=q.split, right=i < now[step]) for i, (q, _) in enumerate(samples)]

    monkeypatch.setattr("mgpo.training.evaluating.assess", play)


def module_of(tokenizer, **options):
    return make(tokenizer, eval_sampling=Sampling(6, 0), **options)


def test_the_best_checkpoint_is_kept(tokenizer, tmp_path, rising):
    best = ModelCheckpoint(tmp_path, "best", monitor="val/accuracy", mode="max")
    train(module_of(tokenizer), tmp_path, callbacks=[best], max_epochs=2)
    assert [path.name for path in tmp_path.glob("*.ckpt")] == ["best.ckpt"]
    assert torch.load(tmp_path / "best.ckpt", weights_only=True)["global_step"] == 4
    assert best.best_model_score == pytest.approx(2 / 3)


def test_training_stops_once_a_split_gets_no_better(tokenizer, tmp_path, rising):
    stop = EarlyStopping("ood/accuracy", mode="max", patience=1)
    saver = ModelCheckpoint(tmp_path, "trained", save_on_train_epoch_end=True, enable_version_counter=False)
    trainer = train(module_of(tokenizer), tmp_path, callbacks=[stop, saver], max_epochs=2)
    assert (trainer.global_step, stop.stopped_epoch) == (6, 1)
    assert finished(tmp_path / "trained.ckpt", trainer)  # though its epoch had a step to go


def test_every_validation_set_has_its_own_curves_and_line(tokenizer, tmp_path, rising, capsys):
    trainer = train(module_of(tokenizer), tmp_path, enable_checkpointing=False)
    assert trainer.callback_metrics["val/accuracy"] == pytest.approx(2 / 3)
    assert trainer.callback_metrics["ood/accuracy"] == 1
    lines = [line for line in capsys.readouterr().out.splitlines() if "accuracy" in line]
    assert [line.split(" accuracy")[0] for line in lines] == [
        "step 2: ood", "step 2: val", "step 4: ood", "step 4: val",
    ]  # fmt: skip


def test_the_profiler_knows_the_steps(tokenizer, tmp_path):
    profiler = SimpleProfiler()
    train(module_of(tokenizer), tmp_path, profiler=profiler, enable_checkpointing=False, limit_val_batches=0)
    assert len(profiler.recorded_durations["run_training_batch"]) == 4
    assert "run_training_batch" in profiler.summary()


def test_fast_dev_run_makes_a_step_and_a_validation_and_leaves_nothing(tokenizer, tmp_path):
    trainer = train(module_of(tokenizer), tmp_path, fast_dev_run=True, val_check_interval=None)
    assert trainer.global_step == 1 and "val/accuracy" in trainer.callback_metrics
    assert list(tmp_path.iterdir()) == []


def test_a_run_ends_by_the_clock_and_goes_on_from_there(tokenizer, tmp_path):
    saver = ModelCheckpoint(tmp_path, "trained", save_on_train_epoch_end=True)
    trainer = train(
        module_of(tokenizer), tmp_path, callbacks=[saver], max_epochs=50, max_time=timedelta(milliseconds=1),
        limit_val_batches=0, val_check_interval=None,
    )  # fmt: skip
    assert trainer.global_step == 1
    trainer.fit_loop.max_epochs = 1
    assert not finished(tmp_path / "trained.ckpt", trainer)
    again = train(
        module_of(tokenizer), tmp_path, ckpt_path=str(tmp_path / "trained.ckpt"), limit_val_batches=0,
        val_check_interval=None, enable_checkpointing=False,
    )  # fmt: skip
    assert again.global_step == 4


@pytest.mark.parametrize(
    ("schedule", "factors"),
    [
        (lambda o: torch.optim.lr_scheduler.CosineAnnealingLR(o, 4), [1, 0.8536, 0.5, 0.1464]),
        (lambda o: torch.optim.lr_scheduler.LinearLR(o, 0.25, 1.0, 3), [0.25, 0.5, 0.75, 1]),
        (lambda o: torch.optim.lr_scheduler.OneCycleLR(o, 1e-3, 5, pct_start=0.4, anneal_strategy="linear"),
         [0.04, 1, 2 / 3, 1 / 3]),
    ],
    ids=["cosine", "warm-up", "one cycle"],
)  # fmt: skip
def test_schedules_go_by_updates(tokenizer, tmp_path, schedule, factors):
    module = module_of(tokenizer, lr_scheduler=schedule)
    steps = watch(module)
    train(module, tmp_path, limit_val_batches=0, enable_checkpointing=False)
    assert [step["lr"] / 1e-3 for step in steps] == pytest.approx(factors, abs=1e-3)


def test_a_run_goes_on_with_other_questions(tokenizer, tmp_path):
    """Between two epochs they may change; optimiser and steps go on."""
    saver = ModelCheckpoint(tmp_path, "trained", save_on_train_epoch_end=True)
    train(module_of(tokenizer), tmp_path, callbacks=[saver], limit_val_batches=0)
    asked = set()
    module = module_of(tokenizer)
    play = module.playable
    module.playable = lambda batch: asked.update(sample.question.split for sample in batch) or play(batch)
    data = VQAData(Scenes(6, side=128, split="ood"), [Scenes(2, side=128, split="val")], batch_size=2, num_workers=0)
    trainer = train(
        module, tmp_path, ckpt_path=str(tmp_path / "trained.ckpt"), data=data, max_epochs=2, val_check_interval=None,
        limit_val_batches=0, enable_checkpointing=False,
    )  # fmt: skip
    assert trainer.global_step == 4 + 3 and asked == {"ood"}


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (
            {"callbacks": [EarlyStopping("val/acc")]},
            r"EarlyStopping\.monitor is val/acc; of val there are val/accuracy",
        ),
        ({"callbacks": [EarlyStopping("test/accuracy")]}, "the splits of data.val are val, ood"),
        ({"callbacks": [ModelCheckpoint(monitor="val/accuracy")], "check_val_every_n_epoch": 2}, "no validation comes"),
        ({"callbacks": [ModelCheckpoint(monitor="val/accuracy")], "limit_val_batches": 0}, "no validation comes"),
        ({"callbacks": [EarlyStopping("val/accuracy")], "max_steps": 1}, "no validation comes before training ends"),
        ({"val_check_interval": 5}, r"val_check_interval is 5, but an epoch has 4 steps"),
        ({"questions": 1}, "data.train has 1 questions that can be used, and a step takes 2; give it more, or lower"),
    ],
)
def test_what_could_never_be_seen_is_one_sentence(tokenizer, tmp_path, options, words):
    with pytest.raises(UserError, match=words):
        train(module_of(tokenizer), tmp_path, **options)


def test_validations_may_be_counted_over_epochs(tokenizer, tmp_path):
    trainer = train(
        module_of(tokenizer), tmp_path, max_epochs=2, val_check_interval=5, check_val_every_n_epoch=None,
        enable_checkpointing=False,
    )  # fmt: skip
    assert "val/accuracy" in trainer.callback_metrics


@pytest.mark.parametrize(
    ("steps", "updates", "options", "comes"),
    [
        (4, 1, {}, False), (3, 1, {}, True), (3, 2, {"max_steps": 4}, False), (3, 2, {"max_steps": 5}, True),
        (4, None, {}, True), (4, 1, {"max_steps": -1}, True), (4, 1, {"val_check_interval": 0.5}, True),
        (9, 1, {"val_check_interval": 3}, True), (2, 1, {"check_val_every_n_epoch": 2}, False),
        (9, 1, {"check_val_every_n_epoch": None, "val_check_interval": 4}, False), (4, 1, {"fast_dev_run": 1}, True),
    ],
)  # fmt: skip
def test_whether_a_validation_comes_before_the_last_step(steps, updates, options, comes):
    plain = dict(
        check_val_every_n_epoch=1, max_epochs=-1, val_check_interval=1.0, limit_val_batches=1.0, max_steps=3,
        fast_dev_run=False,
    )  # fmt: skip
    assert validates(SimpleNamespace(**{**plain, **options}), steps, updates) == comes


def test_curves_of_a_source_can_be_followed():
    check_monitor("ModelCheckpoint", "train/accuracy/signs", ["val"], {"accuracy"}, True)
    with pytest.raises(UserError, match=r"mine/accuracy; the splits of data\.val are val"):
        check_monitor("ModelCheckpoint", "mine/accuracy", ["val"], {"accuracy"}, True)
