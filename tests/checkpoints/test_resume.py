"""A run that goes on is found again, and neither loses nor doubles what it has written."""

import csv
import multiprocessing
import os
import signal

import lightning as L
import pyarrow.parquet as pq
import pytest
import yaml
from lightning.pytorch.callbacks import ModelCheckpoint

from mgpo.callbacks import EarlyWarning, RolloutLog
from mgpo.callbacks.folder import LOCK, OwnFolder
from mgpo.callbacks.metrics_file import KeepRows, MetricsFile
from mgpo.checkpoints.resume import last_checkpoint, last_trained, nearest_run
from mgpo.cli import main
from mgpo.errors import UserError
from mgpo.policy.pretrained import Pretrained
from mgpo.utils.atomic_files import locked
from tests.checkpoints.test_whole_files import save
from tests.training.test_module import Noisy, fit, make


def hold(path, held):
    """In a process of its own."""
    with locked(path, "it", "wait"):
        held.send(True)
        signal.pause()


def test_a_folder_is_written_by_one_process_until_that_dies(tmp_path):
    def setup():
        logger = MetricsFile(tmp_path, "run", version=0)
        OwnFolder().setup(L.Trainer(accelerator="cpu", logger=logger, enable_checkpointing=False), None, "fit")

    lock = tmp_path / "run/version_0" / LOCK
    fork = multiprocessing.get_context("fork")
    here, there = fork.Pipe()
    other = fork.Process(target=hold, args=(lock, there))
    other.start()
    here.recv()
    with pytest.raises(
        UserError, match=r"version_0 is being written by another process; wait .* or begin a run in a folder of its own"
    ):
        setup()
    os.kill(other.pid, signal.SIGKILL)
    other.join()
    setup()
    with locked(lock, "it", "wait"):
        assert lock.exists()
    assert not lock.exists()


def test_a_run_is_found_by_its_configuration(tmp_path):
    trainer = {"logger": {"class_path": "any", "init_args": {"save_dir": str(tmp_path), "name": "mgpo"}}}
    for version, seed in ((0, 1), (1, 2), (2, 1), (3, 1)):
        folder = tmp_path / f"mgpo/version_{version}"
        folder.mkdir(parents=True)
        (folder / "config.yaml").write_text(yaml.safe_dump({"seed": seed}))
        os.utime(folder / "config.yaml", (version, version))
        if version < 3:  # which has not come so far as to save
            save(folder / "checkpoints/last.ckpt", 10 - version)
    assert last_checkpoint(trainer, {"seed": 1}) == (tmp_path / "mgpo/version_2/checkpoints/last.ckpt", 8)
    assert last_checkpoint(trainer, {"seed": 2}) == (tmp_path / "mgpo/version_1/checkpoints/last.ckpt", 9)
    assert last_checkpoint(trainer, {"seed": 3}) is None
    with pytest.raises(UserError, match=r"needs a trainer\.logger with class_path and save_dir"):
        last_checkpoint({"logger": True}, {})


@pytest.fixture
def runs(tmp_path):
    """Where runs are, and what writes one with its checkpoint."""
    trainer = {"logger": {"class_path": "any", "init_args": {"save_dir": str(tmp_path), "name": "mgpo"}}}

    def write(version, name="trained", **config):
        folder = tmp_path / f"mgpo/version_{version}"
        save(folder / "checkpoints" / f"{name}.ckpt", 3)
        (folder / "config.yaml").write_text(yaml.safe_dump(config))
        os.utime(folder / "config.yaml", (version, version))
        return folder / f"checkpoints/{name}.ckpt"

    return trainer, write


def test_what_a_run_did_not_know_or_what_ends_it_makes_it_no_other(runs):
    """A key of later versions that is left out, and trainer.max_time."""
    trainer, write = runs
    path = write(0, model={"dialogue": {"class_path": "D"}}, trainer={"max_time": "00:00:01:00", "max_epochs": 1})
    wanted = {"model": {"dialogue": {"class_path": "D", "cut": None}}, "trainer": {"max_time": None, "max_epochs": 1}}
    wanted["trainer"]["enable_model_summary"] = False
    assert last_checkpoint(trainer, wanted) == (path, 3)
    wanted["model"]["dialogue"]["cut"] = {"class_path": "C"}
    assert last_checkpoint(trainer, wanted) is None


def test_the_nearest_run_and_its_keys_are_named(runs):
    trainer, write = runs
    write(0, model={"seed": 3}, trainer={"max_epochs": 1})
    write(1, model={"seed": 1}, trainer={"max_epochs": 2})
    write(2, model={"seed": 9, "epochs": 4}, trainer={"max_epochs": 2})
    said = nearest_run(trainer, {"model": {"seed": 1}, "trainer": {"max_epochs": 1}})
    assert "version_0 differs in model.seed" in said or "version_1 differs in trainer.max_epochs" in said
    assert nearest_run({"logger": {"init_args": {"save_dir": "nowhere"}}}, {}) == ""


def test_an_evaluation_takes_the_newest_run_of_its_model(runs):
    trainer, write = runs
    write(0, model={"seed": 1})
    path = write(1, model={"seed": 1}, trainer={"max_epochs": 2})
    write(2, "other", model={"seed": 1})  # neither trained.ckpt nor last.ckpt
    write(3, model={"seed": 2})
    assert last_trained(trainer, {"model": {"seed": 1}, "trainer": {}}) == path
    with pytest.raises(UserError, match=r"no run of this model has a checkpoint .*differs in model\.seed"):
        last_trained(trainer, {"model": {"seed": 3}})


@pytest.mark.parametrize("command", ["validate", "test"])
def test_last_without_a_run_is_refused_before_a_weight_is_read(command, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(Pretrained, "load", lambda policy: pytest.fail("weights were read"))
    with pytest.raises(SystemExit, match=r"mgpo: --ckpt_path last: no run of this model has a checkpoint; name"):
        main([command, "--config", "mgpo", "--ckpt_path", "last"])


def test_rows_stay_and_are_kept_in_number(tmp_path):
    def write(*rows):
        logger = MetricsFile(tmp_path, "run", version=0)
        for step, row in rows:
            logger.log_metrics(row, step)
            logger.save()
        return logger.experiment

    def read():
        with (tmp_path / "run/version_0/metrics.csv").open() as lines:
            return [{k: float(v) for k, v in row.items() if v} for row in csv.DictReader(lines)]

    first = [(1, {"a": 1.0}), (2, {"a": 2.0}), (3, {"a": 3.0, "b": 0.1})]
    assert write(*first).count == 3
    assert write((4, {"c": 4.0})).count == 4
    assert read() == [*({"step": step, **row} for step, row in first), {"step": 4, "c": 4.0}]
    with (tmp_path / "run/version_0/metrics.csv").open("a") as file:
        file.write("5,1.2")  # a row that a kill has torn
    write().keep(2)
    assert write((3, {"a": 3.0})).count == 3
    assert read() == [{"step": step, "a": float(step)} for step in (1, 2, 3)]


@pytest.mark.filterwarnings("ignore:Checkpoint directory")
def test_going_on_neither_loses_nor_doubles_a_row(tokenizer, tmp_path):
    """The fourth step fails in its update, after rollouts that are written on the way out; the third was saved."""

    class Failing(Noisy):
        def mini_batch(self, *args):
            if self.global_step == 3:
                raise ZeroDivisionError
            return super().mini_batch(*args)

    def train(name, kind=Noisy, **options):
        saver = ModelCheckpoint(filename="last", every_n_train_steps=1, enable_version_counter=False)
        callbacks = [KeepRows("ckpt_path" not in options), RolloutLog(), EarlyWarning(every_n_steps=2, rows=4), saver]
        logger = MetricsFile(tmp_path, name, version=0)
        fit(make(tokenizer, kind), tmp_path, questions=10, callbacks=callbacks, logger=logger, **options)

    def left(name):
        run = tmp_path / name / "version_0"
        rollouts = [row for path in (run / "rollouts").iterdir() for row in pq.read_table(path).to_pylist()]
        rollouts = sorted(({**row, "run": ""} for row in rollouts), key=lambda r: (r["step"], r["id"], r["rollout"]))
        return (run / "metrics.csv").read_text(), rollouts

    train("alone")
    with pytest.raises(ZeroDivisionError):
        train("broken", Failing)
    assert {row["step"] for row in left("broken")[1]} == {0, 1, 2, 3}
    train("broken", ckpt_path=str(tmp_path / "broken/version_0/checkpoints/last.ckpt"))
    assert left("broken") == left("alone")
    assert len(left("alone")[1]) == 5 * 8 and left("alone")[0].count("\n") == 6
