"""W&B, offline, and TensorBoard get what metrics.csv gets: once, under the run's own name, with its configuration."""

import csv
from collections import Counter
from types import SimpleNamespace

import lightning as L
import pytest
import torch
import wandb
import yaml
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger, WandbLogger
from lightning.pytorch.loggers.logger import DummyLogger, Logger
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from mgpo.callbacks import GroundingGallery, MetricsFile
from mgpo.callbacks.folder import root_for_loggers, run_folder, stays, unlogged_root
from mgpo.callbacks.hyperparameters import _accuracies, flat, log_configuration
from mgpo.callbacks.metrics_file import KeepRows, keep_metrics
from mgpo.checkpoints.resume import go_into, last_checkpoint
from mgpo.commands.quiet import hush_loggers
from mgpo.data.mixture import Mixture, Part
from mgpo.data.module import VQAData
from mgpo.data.scenes import Scenes
from tests.helpers.offline_wandb import runs
from tests.training.test_module import Noisy, make


class Failing(Noisy):
    """Its fifth step fails; the third was saved."""

    def mini_batch(self, *args):
        if self.global_step == 4:
            raise ZeroDivisionError
        return super().mini_batch(*args)


class Configured(L.Callback):
    """As the command line's SaveConfig."""

    def setup(self, trainer, pl_module, stage):
        path = run_folder(trainer) / "config.yaml"
        path.write_text(yaml.safe_dump({"model": {"group_size": 4}}))
        log_configuration(trainer, path)


@pytest.fixture(autouse=True)
def offline(monkeypatch):
    wandb.finish()
    monkeypatch.setenv("WANDB_MODE", "offline")
    yield
    wandb.finish()


class Bare(Logger):
    """What Lightning asks of a logger, and nothing else."""

    name, version = "bare", 0

    def log_metrics(self, metrics, step=None):
        pass

    def log_hyperparams(self, params, *args, **options):
        pass


def test_a_logger_needs_nothing_that_lightning_does_not_ask_for(tmp_path):
    trainer = L.Trainer(logger=Bare(), default_root_dir=tmp_path, accelerator="cpu")
    assert run_folder(trainer) == tmp_path / "bare" / "0"


def train(module, logger, folder, ckpt_path=None):
    """As `fit` does it: five steps, a checkpoint at the third, pictures at every second, a validation at the end."""
    saver = ModelCheckpoint(filename="last", every_n_train_steps=3, enable_version_counter=False)
    trainer = L.Trainer(
        accelerator="cpu", logger=logger, max_epochs=1, enable_progress_bar=False, enable_model_summary=False,
        use_distributed_sampler=False, log_every_n_steps=1, default_root_dir=folder, num_sanity_val_steps=0,
        callbacks=[Configured(), KeepRows(ckpt_path is None), GroundingGallery(2, questions=1, rollouts=1), saver],
    )  # fmt: skip
    keep_metrics(trainer)
    data = VQAData(Scenes(10, side=128), [Scenes(2, side=128, split="val")], batch_size=2, num_workers=0)
    trainer.fit(module, data, ckpt_path=ckpt_path, weights_only=True if ckpt_path else None)
    return run_folder(trainer)


def broken_and_gone_on_with(tokenizer, make_logger, folder):
    with pytest.raises(ZeroDivisionError):
        train(make(tokenizer, Failing), make_logger(), folder)
    wandb.finish()
    (saved,) = folder.glob("*/*/checkpoints/last.ckpt")
    return train(make(tokenizer), make_logger(saved.parent.parent.name), folder, str(saved))


def rows_of(run):
    """(step, curve) of all that metrics.csv holds."""
    with (run / "metrics.csv").open() as lines:
        rows = list(csv.DictReader(lines))
    return Counter((int(row["step"]), name) for row in rows for name, value in row.items() if value and name != "step")


@pytest.mark.filterwarnings("ignore:Checkpoint directory", "ignore:.*workers")
def test_tensorboard_has_every_step_once_where_a_run_went_on(tokenizer, tmp_path):
    run = broken_and_gone_on_with(
        tokenizer, lambda version=None: TensorBoardLogger(tmp_path, "tb", version=version), tmp_path
    )
    events = EventAccumulator(str(run), size_guidance={"images": 0, "scalars": 0}).Reload()
    tags = events.Tags()
    found = Counter((event.step, tag) for tag in tags["scalars"] for event in events.Scalars(tag))
    assert set(found.values()) == {1}
    assert found == rows_of(run) and {step for step, _ in found} == {1, 2, 3, 4, 5}
    pictures = [event.step for tag in tags["images"] for event in events.Images(tag)]
    assert sorted(pictures) == [0, 2, 4, 5]


@pytest.mark.filterwarnings("ignore:Checkpoint directory", "ignore:.*workers", "ignore:`resume` will be ignored")
def test_wandb_goes_on_with_the_run_and_gets_every_step_once(tokenizer, tmp_path):
    run = broken_and_gone_on_with(
        tokenizer,
        lambda version=None: WandbLogger("recipe", tmp_path, version=version, project="proj"),
        tmp_path,
    )
    wandb.finish()
    parts = runs(tmp_path)
    assert len(parts) == 2
    assert {(part["id"], part["name"]) for part in parts} == {(run.name, f"recipe-{run.name}")}
    given = [(row["trainer/global_step"], name) for part in parts for row in part["rows"] for name in row]
    curves = [(step, name) for step, name in given if "/" in name and not name.startswith(("gallery", "trainer"))]
    assert Counter(curves) == Counter(pair for pair in rows_of(run) if pair[1] != "epoch")
    assert sorted(step for step, name in given if name.startswith("gallery/pictures") and name.endswith("count")) == [
        0, 2, 4, 5,
    ]  # fmt: skip


def test_every_run_of_a_recipe_has_its_own_name_and_its_configuration(tmp_path):
    config = {"model": {"objective": {"kl_weight": 0.05}}, "data": {"val": [{"class_path": "a"}, {"class_path": "b"}]}}
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(config))
    for name in ("mgpo", "mgpo", None):
        trainer = L.Trainer(accelerator="cpu", logger=WandbLogger(name, tmp_path, project="p"), barebones=False)
        log_configuration(trainer, tmp_path / "config.yaml")
        wandb.finish()
    found = runs(tmp_path)
    assert len({run["name"] for run in found}) == 3
    assert all(run["name"].endswith(run["id"]) for run in found)
    assert [run["name"].split("-")[0] for run in found].count("mgpo") == 2
    assert all(run["config"]["model"] == config["model"] for run in found)
    assert dict(flat(config)) == {
        "model.objective.kl_weight": 0.05, "data.val.0.class_path": "a", "data.val.1.class_path": "b",
    }  # fmt: skip


def test_tensorboard_shows_the_configuration_beside_the_accuracy(tokenizer, tmp_path):
    run = train(make(tokenizer), TensorBoardLogger(tmp_path, "tb"), tmp_path)
    events = EventAccumulator(str(run)).Reload()
    from tensorboard.plugins.hparams import plugin_data_pb2

    plugin = events.PluginTagToContent("hparams")
    start = plugin_data_pb2.HParamsPluginData.FromString(plugin["_hparams_/session_start_info"]).session_start_info
    assert start.hparams["model.group_size"].number_value == 4
    experiment = plugin_data_pb2.HParamsPluginData.FromString(plugin["_hparams_/experiment"]).experiment
    assert [metric.name.tag for metric in experiment.metric_infos] == ["val/accuracy"]
    assert "val/accuracy" in events.Tags()["scalars"] and "hp_metric" not in events.Tags()["scalars"]
    assert yaml.safe_load((run / "hparams.yaml").read_text())["model.group_size"] == 4


def test_loggers_that_answer_to_anything_are_left_alone():
    """Lightning puts such ones in the place of all others for a fast_dev_run."""
    wand = WandbLogger(offline=True, anonymous="must")
    hush_loggers([DummyLogger(), CSVLogger("."), wand])
    assert "anonymous" not in wand._wandb_init


def test_sources_that_say_no_split_have_an_accuracy_too():
    """Such as a mixture, or one of somebody's own."""
    data = SimpleNamespace(val=[Mixture([Part(Scenes(2, side=448, split="ood"))]), Scenes(2, split="val")])
    assert _accuracies(SimpleNamespace(datamodule=data)) == ["ood/accuracy", "val/accuracy"]


def test_metrics_are_kept_beside_any_logger_and_never_twice(tmp_path):
    def files(logger, **options):
        trainer = L.Trainer(accelerator="cpu", logger=logger, default_root_dir=tmp_path, **options)
        keep_metrics(trainer)
        return [logger for logger in trainer.loggers if isinstance(logger, CSVLogger)]

    (beside,) = files([TensorBoardLogger(tmp_path, "tb"), WandbLogger(save_dir=tmp_path)])
    assert beside.log_dir == str(tmp_path / "tb/version_0")
    for own in (MetricsFile(tmp_path), CSVLogger(tmp_path)):
        assert files([TensorBoardLogger(tmp_path), own]) == [own]
    assert files(False) == [] and files(TensorBoardLogger(tmp_path), fast_dev_run=True) == []


def test_what_has_no_logger_goes_elsewhere_unless_a_folder_is_named():
    for asked in ({"logger": False}, {"logger": True, "fast_dev_run": 2}):
        (folder,) = unlogged_root(asked).values()
        assert "mgpo-" in folder
        assert unlogged_root({**asked, "default_root_dir": "here"}) == {}
    assert unlogged_root({"logger": {"class_path": "any"}, "fast_dev_run": False}) == {}


def test_what_goes_with_the_process_is_known():
    (folder,) = unlogged_root({"logger": False}).values()
    assert not stays(L.Trainer(accelerator="cpu", logger=False, default_root_dir=folder))
    assert stays(L.Trainer(accelerator="cpu", logger=False, default_root_dir="elsewhere"))


@pytest.mark.parametrize("several", [False, True])
def test_a_root_is_the_folder_of_loggers_that_name_no_other(several):
    loggers = [{"class_path": "c", "init_args": {"save_dir": folder}} for folder in ("runs", "mine")]
    for given in [loggers] if several else loggers:
        root_for_loggers({"default_root_dir": "X", "logger": given})
    assert [logger["init_args"]["save_dir"] for logger in loggers] == ["X", "mine"]
    for other in (True, False, None, {"class_path": "w"}):
        root_for_loggers({"default_root_dir": "X", "logger": other})
    root_for_loggers({"default_root_dir": None, "logger": (kept := {"init_args": {"save_dir": "runs"}})})
    assert kept["init_args"]["save_dir"] == "runs"


def test_each_logger_goes_on_with_what_it_had(tmp_path, monkeypatch):
    """W&B finds its run by an id, TensorBoard its folder by a version; neither is the other's."""
    config = {"logger": [{"class_path": "w", "init_args": {"save_dir": str(tmp_path), "name": "a", "project": None}},
                         {"class_path": "t", "init_args": {"save_dir": str(tmp_path), "name": "b"}}]}  # fmt: skip
    monkeypatch.setenv("WANDB_PROJECT", "mine")
    path = tmp_path / "mine/x1y2/checkpoints/last.ckpt"
    path.parent.mkdir(parents=True)
    saved = {"global_step": 3, "state_dict": {}, "pytorch-lightning_version": "2.6.0"}
    torch.save(saved | {"metrics_file": {"versions": ["x1y2", "version_4", "version_0"]}}, path)
    (tmp_path / "mine/x1y2/config.yaml").write_text("seed: 1")
    assert last_checkpoint(config, {"seed": 1}) == (path, 3)
    go_into(path, config)
    assert [logger["init_args"]["version"] for logger in config["logger"]] == ["x1y2", "version_4"]
    assert path.parents[1].rename(tmp_path / "mine/moved").is_dir()
    moved = tmp_path / "mine/moved/checkpoints/last.ckpt"
    config["logger"].reverse()
    go_into(moved, config)
    assert [logger["init_args"]["version"] for logger in config["logger"]] == ["moved", "version_4"]
    config["logger"].reverse()
    path = moved.parents[1].rename(tmp_path / "mine/x1y2") / "checkpoints/last.ckpt"
    torch.save(saved, path)  # of an earlier version
    go_into(path, config)
    assert [logger["init_args"]["version"] for logger in config["logger"]] == ["x1y2", "x1y2"]
