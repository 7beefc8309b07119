"""Checkpoints in shards: for any number of ranks, whole after a kill, and read without running anything."""

import os
import pickle
import signal
from pathlib import Path

import lightning as L
import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import distributed
from torch.distributed.checkpoint.filesystem import FileSystemWriter

from mgpo.checkpoints import sharded as shards
from mgpo.data import Scenes, VQAData
from mgpo.distributed import FSDP2Strategy
from mgpo.distributed.saver import Saver
from mgpo.errors import UserError
from mgpo.policy.hub.run_weights import policy_weights
from tests.conftest import make_policy
from tests.helpers import sharded
from tests.helpers.sharded import LORA, fit, launch, make

STEPS, BETWEEN = 4, 2


def saver(folder):
    return ModelCheckpoint(folder, filename="{step}", every_n_train_steps=BETWEEN, save_top_k=-1)


def train(folder, name, kind="mgpo", lora=None, ranks=2, **options):
    """The weights after four steps, of which the second and the last are saved."""
    callbacks = [saver(folder / name)]
    return fit(make(kind, lora), folder, ranks, STEPS, callbacks=callbacks, enable_checkpointing=True, **options)[1]


def go_on(folder, name, kind="mgpo", lora=None, ranks=2, **options):
    return fit(make(kind, lora), folder, ranks, STEPS, ckpt_path=str(folder / name / "step=2.ckpt"), **options)[1]


def keep(rank, folder, **found):
    for name, weights in found.items():
        if rank == 0:
            torch.save(weights, folder / f"{name}.pt")


def save_and_resume(rank, folder):
    whole = FSDP2Strategy(save_distributed_checkpoint=False)
    keep(rank, folder, uninterrupted=train(folder, "sharded"), resumed=go_on(folder, "sharded"))
    keep(rank, folder, whole=train(folder, "whole", strategy=whole))
    keep(rank, folder, cut=go_on(folder, "whole"), evaluated=evaluated(folder, "whole"))
    later = FSDP2Strategy(save_in_background=True)
    keep(rank, folder, adapters=train(folder, "adapters", "sft", LORA, strategy=later))
    keep(rank, folder, again=go_on(folder, "adapters", "sft", LORA))


def on_one(rank, folder):
    keep(rank, folder, one=go_on(folder, "sharded", ranks=1, strategy=FSDP2Strategy()))


def evaluated(folder, name):
    """The weights under which shards are validated, out of one file."""
    module, data = make("mgpo"), VQAData(val=[Scenes(2, side=128, split="val")], num_workers=0)
    trainer = L.Trainer(
        accelerator="cpu", devices=2, strategy=FSDP2Strategy(), default_root_dir=folder, logger=False,
        enable_model_summary=False, enable_progress_bar=False, use_distributed_sampler=False, inference_mode=False,
    )  # fmt: skip
    trainer.validate(module, data, str(folder / name / "step=2.ckpt"), verbose=False, weights_only=True)
    return sharded.whole(module.policy)


def on_four(rank, folder):
    keep(rank, folder, four=go_on(folder, "sharded", ranks=4, strategy=FSDP2Strategy(replicas=2)))


def read(folder, name):
    return torch.load(folder / f"{name}.pt", weights_only=True)


def close(a, b, atol):
    return a.keys() == b.keys() and all(torch.allclose(a[name], b[name], rtol=0, atol=atol) for name in a)


def test_a_run_goes_on_from_shards_and_from_one_file(two_ranks):
    """On as many ranks bit for bit; from one file on a single device, without any strategy, like on two. An evaluation
    takes the weights alone."""
    assert (two_ranks / "sharded" / "step=2.ckpt").is_dir() and (two_ranks / "whole" / "step=2.ckpt").is_file()
    uninterrupted = read(two_ranks, "uninterrupted")
    assert close(read(two_ranks, "resumed"), uninterrupted, 0)
    assert close(read(two_ranks, "whole"), uninterrupted, 0) and close(read(two_ranks, "cut"), uninterrupted, 0)
    saved = policy_weights(str(two_ranks / "whole" / "step=2.ckpt"))
    assert all(torch.equal(value, saved[name]) for name, value in read(two_ranks, "evaluated").items())
    assert close(read(two_ranks, "again"), read(two_ranks, "adapters"), 0)
    alone = fit(make("mgpo"), two_ranks, steps=STEPS, ckpt_path=str(two_ranks / "whole" / "step=2.ckpt"))[1]
    assert close(alone, uninterrupted, 1e-5)


def test_shards_are_put_together_for_everything_that_asks_a_model(two_ranks, tokenizer):
    """Frozen weights are in no checkpoint, and the base under adapters is known again."""
    for name, found, options in (("sharded", "uninterrupted", {}), ("adapters", "adapters", {"lora": LORA})):
        policy = make_policy(tokenizer, **options)
        policy.load_state_dict(policy_weights(str(two_ranks / name / "step=4.ckpt")))
        trained = {name: p.detach() for name, p in policy.named_parameters() if p.requires_grad}
        assert close(trained, read(two_ranks, found), 0)
    other = make_policy(tokenizer, seed=1, lora=LORA)
    with pytest.raises(UserError, match="trained on another base"):
        other.load_state_dict(policy_weights(str(two_ranks / "adapters" / "step=4.ckpt")))


@pytest.mark.slow
def test_a_run_goes_on_with_other_numbers_of_ranks(two_ranks):
    """The same questions in the same steps, as long as a step has as many of them in all."""
    launch(on_one, two_ranks, ranks=1)
    launch(on_four, two_ranks, ranks=4)
    for name in ("one", "four"):
        assert close(read(two_ranks, name), read(two_ranks, "uninterrupted"), 1e-5), name


def save_twice(rank, folder):
    """The second save dies on one rank while it writes."""
    distributed.init_process_group("gloo")
    for background, name in ((False, "at-once"), (True, "background")):
        keeper = Saver(background)
        keeper.save(folder / name, {"state_dict": {"weight": torch.ones(4)}, "step": 1})
        keeper.wait()
    if rank == 1:
        FileSystemWriter.write_data = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
    keeper.save(folder / "background", {"state_dict": {"weight": torch.zeros(4)}, "step": 2})
    keeper.wait()


def test_a_save_that_is_killed_leaves_what_was_there(tmp_path):
    with pytest.raises(Exception, match="SIGKILL"):
        launch(save_twice, tmp_path)
    for name in ("at-once", "background"):
        kept = shards.load(tmp_path / name, {}, [])
        assert kept["step"] == 1 and kept["state_dict"]["weight"].tolist() == [1] * 4
    os.rename(tmp_path / "at-once", tmp_path / "at-once.old")  # between taking the name and giving it
    with torch.device("meta"):  # they are read into the host's memory, whatever the default
        assert shards.weights(tmp_path / "at-once")["weight"].tolist() == [1] * 4
    for shard in (tmp_path / "background").glob("*.distcp"):
        shard.unlink()
    for read_again in (shards.weights, lambda path: shards.load(path, {"weight": torch.zeros(4)}, []), policy_weights):
        with pytest.raises(UserError, match="background can't be read as a checkpoint of a run"):
            read_again(tmp_path / "background")


class Evil:
    def __reduce__(self):
        return (os.system, ("touch evil",))


@pytest.mark.parametrize("content", [pickle.dumps(Evil()), b"", b"\x80\x04\x8c\x02osq\x00.", pickle.dumps([1])])
def test_an_index_that_is_none_is_refused(tmp_path, monkeypatch, content):
    monkeypatch.chdir(tmp_path)
    Path(".metadata").write_bytes(content)
    Path("meta.pt").touch()
    with pytest.raises(UserError, match="not the index of a checkpoint"):
        shards.weights(tmp_path)
    assert not Path("evil").exists()
    with pytest.raises(UserError, match="not a checkpoint of a run"):
        shards.weights(tmp_path / "none")
