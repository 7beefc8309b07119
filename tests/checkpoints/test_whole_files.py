"""What a run saves is whole or not there, and what is no checkpoint is refused."""

import errno
import os
import pickle
from pathlib import Path

import pytest
import torch
from lightning.fabric.plugins import TorchCheckpointIO
from torch.distributed.checkpoint.api import CheckpointException

from mgpo.callbacks.metrics_file import MetricsFile
from mgpo.checkpoints.whole import WholeFiles, load_state, newest, trained
from mgpo.cli import main
from mgpo.errors import UserError
from mgpo.utils.atomic_files import replaced, write_json, writing

ROOT = Path(__file__).parents[2]


def save(path, step):
    weights = {"weight": torch.full((1000,), float(step))}
    saved = {"global_step": step, "state_dict": weights, "pytorch-lightning_version": "2.6.0"}
    WholeFiles().save_checkpoint(saved, path)


def test_a_file_is_replaced_whole_or_not_at_all(tmp_path):
    path = tmp_path / "deep" / "file"
    with replaced(path) as unfinished:
        unfinished.write_text("old")
        assert not path.exists()
    with pytest.raises(ZeroDivisionError), replaced(path) as unfinished:
        unfinished.write_text(f"half of the new content {1 / 0}")
    assert path.read_text() == "old" and [p.name for p in path.parent.iterdir()] == ["file"]


def test_json_is_in_utf_8_whatever_the_texts_are(tmp_path):
    write_json(tmp_path / "file.json", {"é": "\ud800"})
    assert (tmp_path / "file.json").read_bytes() == '{\n "é": "?"\n}\n'.encode()


def test_the_newest_checkpoint_is_whole(tmp_path):
    assert newest(tmp_path / "none") is None
    for step in (3, 12, 7):
        save(tmp_path / f"{step}.ckpt", step)
    whole = (tmp_path / "12.ckpt").read_bytes()
    (tmp_path / "torn.ckpt").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "empty.ckpt").touch()
    (tmp_path / "folder.ckpt").mkdir()
    save(tmp_path / "20.ckpt.unfinished", 20)
    assert newest(tmp_path) == (tmp_path / "12.ckpt", 12)
    (tmp_path / "12.ckpt").write_bytes(whole[:-1])
    assert newest(tmp_path) == (tmp_path / "7.ckpt", 7)


def broken(folder):
    """Files under a checkpoint's name, none of which is one."""
    whole = {"global_step": 1, "state_dict": {}, "pytorch-lightning_version": "2.6.0"}
    wrong = {
        "tensors": {"weight": torch.zeros(1)},
        "step": {**whole, "global_step": "many"},
        "version": {**whole, "pytorch-lightning_version": "x"},
        "pickle": Evil(),
        "list": [whole],
    }
    folder.mkdir()
    for name, content in wrong.items():
        torch.save(content, folder / f"{name}.ckpt")
    torn = (folder / "step.ckpt").read_bytes()
    (folder / "torn.ckpt").write_bytes(torn[: len(torn) // 2])
    (folder / "empty.ckpt").touch()
    (folder / "folder.ckpt").mkdir()
    shards = folder / "shards.ckpt"
    shards.mkdir()
    (shards / ".metadata").touch()
    (shards / "meta.pt").write_bytes(pickle.dumps(Evil()))
    return sorted(folder.glob("*.ckpt"))


class Evil:
    def __reduce__(self):
        return (os.system, ("touch evil",))


def test_what_is_no_checkpoint_is_one_sentence(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    paths = [*broken(tmp_path / "run"), tmp_path / "none.ckpt"]
    assert len(paths) == 10
    for path in paths:
        with pytest.raises(UserError, match=r"can't be read as a checkpoint|is not a checkpoint") as refused:
            load_state(path)
        assert str(path) in str(refused.value) and len(str(refused.value)) <= 600
        if path.is_file():
            with pytest.raises(UserError):
                WholeFiles().load_checkpoint(path, weights_only=False)
    assert not (tmp_path / "evil").exists()
    save(tmp_path / "run" / "whole.ckpt", 3)
    assert newest(tmp_path / "run") == (tmp_path / "run" / "whole.ckpt", 3)
    (tmp_path / "run" / "whole.ckpt").unlink()
    with pytest.raises(UserError, match=r"no checkpoint in .*run can be read"):
        newest(tmp_path / "run")


@pytest.mark.parametrize("command", [["validate"], ["fit", f"--config={ROOT}/configs/mgpo.yaml"]])
def test_commands_refuse_what_is_no_checkpoint(tmp_path, monkeypatch, command):
    monkeypatch.chdir(tmp_path)
    torch.save(Evil(), tmp_path / "evil.ckpt")
    with pytest.raises(SystemExit, match=r"mgpo: evil\.ckpt can't be read as a checkpoint of a run"):
        main([*command, "--ckpt_path=evil.ckpt"])
    assert [path.name for path in tmp_path.iterdir()] == ["evil.ckpt"]


@pytest.mark.parametrize(("code", "words"), [(errno.ENOSPC, "the disk is full"), (errno.EROFS, "is read-only")])
def test_a_disk_that_takes_no_more_keeps_the_last_checkpoint(tmp_path, monkeypatch, code, words):
    save(tmp_path / "last.ckpt", 1)

    def fail(descriptor):
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(UserError, match=rf"last\.ckpt can.t be written: .*{words}; what was saved before is kept"):
        save(tmp_path / "last.ckpt", 2)
    assert newest(tmp_path) == (tmp_path / "last.ckpt", 1)
    assert len(list(tmp_path.iterdir())) == 1


def test_a_folder_that_cannot_be_made_is_one_sentence(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="a part of the path is a file"):
        save(tmp_path / "file/checkpoints/last.ckpt", 1)
    with pytest.raises(UserError, match="can't be written"):
        _ = MetricsFile("/proc/none", "run").experiment
    with pytest.raises(FileNotFoundError), writing(tmp_path):  # nothing else is renamed
        raise FileNotFoundError("a file that was to be read")


def test_the_refusal_behind_another_error_is_told(tmp_path):
    with pytest.raises(UserError, match="can't be written: the disk is full"), writing(tmp_path / "page.html"):
        raise OSError(errno.EIO, "the writer gave up") from OSError(errno.ENOSPC, "no space left")
    with pytest.raises(UserError, match="can't be written: the disk is full"), writing(tmp_path / "step=2.ckpt"):
        raise CheckpointException("save", {1: (OSError(errno.ENOSPC, "no space left"), None)})


def test_another_way_to_save_is_left_alone():
    class Own(TorchCheckpointIO): ...

    class Strategy:
        checkpoint_io = Own()

    from mgpo.checkpoints.whole import save_whole_files

    save_whole_files(Strategy)
    assert type(Strategy.checkpoint_io) is Own


@pytest.mark.parametrize(
    ("steps", "name"), [((8, 5), "trained.ckpt"), ((8, 11), "last.ckpt"), ((8, None), "trained.ckpt")]
)
def test_a_run_that_was_killed_is_known_by_the_later_of_its_checkpoints(tmp_path, steps, name):
    """Behind the end of its first epoch `trained.ckpt` stays as it is until the second ends."""
    folder = tmp_path / "checkpoints"
    folder.mkdir()
    for file, step in zip(("trained.ckpt", "last.ckpt"), steps):
        state = {"state_dict": {}, "global_step": step, "pytorch-lightning_version": "2.6.6"}
        torch.save(state, folder / file)  # one without a step can't be read
    assert trained(tmp_path) == folder / name
