"""Whatever the moment at which a checkpoint was saved: from there everything is done once, in the right order."""

from dataclasses import replace
from pathlib import Path

import lightning as L
import pytest
import torch
from lightning.pytorch.callbacks import Checkpoint
from PIL import Image

from mgpo.checkpoints.resume import finished, refuse_finished
from mgpo.data.module import VQAData
from mgpo.data.scenes import Scenes
from mgpo.errors import UserError
from mgpo.rollout.in_process import InProcessSampler
from mgpo.training.going_on import GoOn
from mgpo.training.groups import DynamicSamplingPool
from tests.conftest import make_question
from tests.training import test_module


class Numbered:
    """Questions that are known by their number."""

    def __init__(self, count):
        self.count = count

    def __len__(self):
        return self.count

    def __getitem__(self, index):
        return replace(make_question(Image.new("RGB", (28, 28)), str(index)), split="val")


class Diary(L.LightningModule):
    """Learns nothing, and writes down what it is asked to do."""

    def __init__(self):
        super().__init__()
        self.automatic_optimization = False
        self.weight, self.pool, self.lines = torch.nn.Parameter(torch.zeros(1)), DynamicSamplingPool(1), []

    def configure_callbacks(self):
        return GoOn()

    def configure_optimizers(self):
        return torch.optim.SGD([self.weight])

    def training_step(self, batch, batch_idx):
        self.lines.append((self.trainer.current_epoch, batch_idx, [sample.question.id for sample in batch]))
        self.weight.grad = torch.ones(1)
        self.optimizers().step()

    def validation_step(self, batch, batch_idx, dataloader_idx=0):
        self.lines.append(f"validation {batch_idx}")

    def on_train_epoch_start(self):
        self.lines.append("epoch")

    def on_validation_epoch_end(self):
        self.lines.append("validated")

    def on_train_epoch_end(self):
        self.lines.append("epoch ended")

    def on_train_end(self):
        self.lines.append("ended")


class SaveAlways(Checkpoint):
    """Wherever ModelCheckpoint may save; `at` has how many lines had been written before each checkpoint."""

    def __init__(self, folder):
        self.folder, self.at = folder, {}

    def save(self, trainer, pl_module, *rest):
        path = str(self.folder / f"{len(self.at)}.ckpt")
        trainer.save_checkpoint(path)
        self.at[path] = len(pl_module.lines)

    on_train_batch_end = on_validation_end = on_train_epoch_end = save


def fit(folder, workers=0, questions=10, batch_size=2, seed=0, ckpt_path=None, **options):
    """What was done, and for each checkpoint how much of it had been done when it was saved."""
    module, saver = Diary(), SaveAlways(folder)
    data = VQAData(Numbered(questions), [Numbered(3)], (), batch_size, 2, workers, seed)
    trainer = L.Trainer(
        accelerator="cpu", callbacks=[saver] if ckpt_path is None else [], enable_checkpointing=ckpt_path is None,
        logger=False, enable_progress_bar=False, enable_model_summary=False, use_distributed_sampler=False,
        num_sanity_val_steps=0, **{"max_epochs": 3, **options},
    )  # fmt: skip
    trainer.fit(module, data, ckpt_path=ckpt_path, weights_only=True if ckpt_path else None)
    return module.lines, saver.at


def steps(lines):
    return [line for line in lines if isinstance(line, tuple)]


@pytest.mark.filterwarnings("ignore:.*workers")
@pytest.mark.parametrize(
    ("workers", "options"),
    [
        (0, {"limit_val_batches": 0}),
        (1, {}),
        (2, {"limit_val_batches": 0, "max_epochs": 2}),
        (0, {"val_check_interval": 2}),
        (0, {"check_val_every_n_epoch": None, "val_check_interval": 3}),
        (0, {"max_steps": 8}),
        (0, {"max_steps": 10, "limit_val_batches": 0}),
        (0, {"limit_train_batches": 3, "limit_val_batches": 0}),
    ],
)
def test_from_every_checkpoint_the_rest_is_done_once(tmp_path, workers, options):
    lines, saved = fit(tmp_path, workers, **options)
    assert len({str(line[2]) for line in steps(lines)}) > 6  # another order in every epoch
    for path, count in saved.items():
        rest = lines[count:]
        assert fit(tmp_path, workers, ckpt_path=path, **options)[0] == (rest if rest != ["ended"] else []), path


def test_workers_may_be_more_or_fewer_than_before(tmp_path):
    lines, saved = fit(tmp_path, 1, limit_val_batches=0, max_epochs=2)
    path = list(saved)[7]
    for workers in (0, 2):
        assert fit(tmp_path, workers, ckpt_path=path, limit_val_batches=0, max_epochs=2)[0] == lines[saved[path] :]


@pytest.mark.parametrize("other", [{"questions": 12}, {"batch_size": 5}, {"seed": 1}])
def test_an_epoch_is_not_gone_on_with_in_another_order(tmp_path, other):
    """Between two epochs data may change."""
    _, saved = fit(tmp_path, limit_val_batches=0, max_epochs=2)
    middle, end = list(saved)[2], list(saved)[5]
    with pytest.raises(UserError, match=r"in the middle of an epoch .* keep the data"):
        fit(tmp_path, ckpt_path=middle, limit_val_batches=0, **other)
    lines = fit(tmp_path, ckpt_path=end, limit_val_batches=0, **other)[0]
    assert len(steps(lines)) == 2 * (other.get("questions", 10) // other.get("batch_size", 2))


@pytest.mark.parametrize("limit", [{"max_epochs": 2}, {"max_steps": 7}])
def test_a_finished_checkpoint_is_refused(tmp_path, limit):
    _, saved = fit(tmp_path, limit_val_batches=0, **limit)
    trainer = L.Trainer(accelerator="cpu", logger=False, enable_checkpointing=False, **{"max_epochs": 3, **limit})
    steps = {path: torch.load(path, weights_only=True)["global_step"] for path in saved}
    ended = {path for path in saved if finished(Path(path), trainer)}
    assert ended == {path for path, step in steps.items() if step == max(steps.values())}
    with pytest.raises(
        UserError, match=r"no step is left; to go on, .* more trainer\.max_epochs .*policy\.init_args\.start"
    ):
        refuse_finished(Path(max(ended)), trainer)


def test_training_does_not_go_on_from_weights_alone(tmp_path):
    path, (saved, *_) = tmp_path / "weights.ckpt", fit(tmp_path, limit_val_batches=0, max_epochs=1)[1]
    whole = torch.load(saved, weights_only=True)

    class Model(test_module.Noisy):
        def __init__(self):
            L.LightningModule.__init__(self)

    model = Model()
    for wrong, words in (
        ({name: value for name, value in whole.items() if name != "optimizer_states"}, "weights alone"),
        ({**whole, "loops": {"fit_loop": {}}}, "does not say how far"),
    ):
        torch.save(wrong, path)
        model.trainer = L.Trainer(accelerator="cpu", logger=False, enable_checkpointing=False)
        model.trainer.state.fn = "fit"
        with pytest.raises(UserError, match=words):
            model.on_load_checkpoint(torch.load(path, weights_only=True))


class Rare(test_module.Noisy):
    """Two questions of three have no signal."""

    def roll_out(self, samples, step, copies=None):
        trajectories = super().roll_out(samples, step, copies)
        for i, trajectory in enumerate(trajectories):
            trajectory.reward = float(i % 2 and int(trajectory.question.id.split("-")[-1]) % 3 == 0)
        return trajectories


def test_groups_that_waited_are_there_again(tokenizer, tmp_path):
    def make():
        return test_module.make(tokenizer, Rare, constant_reward_groups="resample", resample_batches=3)

    whole, saver = make(), SaveAlways(tmp_path)
    whole.lines = []
    test_module.fit(whole, tmp_path, questions=12, callbacks=[saver])
    waiting = {path: torch.load(path, weights_only=True)["waiting"] for path in saver.at}
    assert set(waiting.values()) >= {0, 1, 2}
    for path in [path for path, count in waiting.items() if count][:2]:
        again = make()
        test_module.fit(again, tmp_path, questions=12, ckpt_path=path, enable_checkpointing=False)
        assert test_module.equal(test_module.weights(whole), test_module.weights(again)), path


class Ahead(InProcessSampler):
    """Gives in each step what the step before has asked for."""

    exact = False

    def __init__(self):
        super().__init__()
        self.asked = []

    def run(self, policy, roll_out):
        self.asked.append(roll_out)
        return self.asked.pop(0)() if len(self.asked) > 1 else []


@pytest.mark.parametrize("credit", ["answer", "turn"])
def test_what_waited_may_be_nothing_yet(tokenizer, tmp_path, credit):
    """As where a sampler runs ahead: its first step gives nothing."""

    def make():
        options = dict(constant_reward_groups="resample", resample_batches=3, credit=credit)
        return test_module.make(tokenizer, Rare, sampler=Ahead(), **options)

    saver = SaveAlways(tmp_path)
    (whole := make()).lines = []
    test_module.fit(whole, tmp_path, questions=12, callbacks=[saver])
    waiting = {path: torch.load(path, weights_only=True)["waiting"] for path in saver.at}
    path = next(path for path, count in waiting.items() if count > 1)
    assert test_module.fit(make(), tmp_path, questions=12, ckpt_path=path, enable_checkpointing=False).global_step > 0


class Dated(Rare):
    """Knows in which epoch a trajectory was rolled out."""

    def roll_out(self, samples, step, copies=None):
        trajectories = super().roll_out(samples, step, copies)
        self.born.update(dict.fromkeys(map(id, trajectories), self.current_epoch))
        self.kept += trajectories  # so that no id is given again
        return trajectories

    def mini_batch(self, groups, *rest):
        self.ages += [self.current_epoch - self.born[id(trajectory)] for trajectory in groups.trajectories]
        return super().mini_batch(groups, *rest)

    def on_train_epoch_end(self):
        self.waited += len(self.pool.waiting)
        super().on_train_epoch_end()


def test_groups_that_wait_when_an_epoch_ends_are_not_learnt_in_the_next(tokenizer, tmp_path):
    module = test_module.make(tokenizer, Dated, constant_reward_groups="resample", resample_batches=3)
    module.born, module.kept, module.ages, module.waited = {}, [], [], 0
    data = VQAData(train=Scenes(8, side=128), batch_size=2, num_workers=0)
    trainer = L.Trainer(
        accelerator="cpu", max_epochs=3, logger=False, enable_progress_bar=False, enable_model_summary=False,
        enable_checkpointing=False, default_root_dir=tmp_path, use_distributed_sampler=False, limit_val_batches=0,
    )  # fmt: skip
    trainer.fit(module, data)
    assert module.waited and module.ages and not any(module.ages)
