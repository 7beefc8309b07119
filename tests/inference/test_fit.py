"""Training from a few lines of Python: settings as Python has them, and where files lie."""

import numpy as np
import pytest

import mgpo
from mgpo.errors import UserError
from mgpo.rewards import NumericAnswer

SMALL = {
    "data.train.count": 2, "data.train.side": 256, "data.batch_size": 2, "data.num_workers": 0, "measure": "never",
    "preflight": "off",
}  # fmt: skip


def near(answer, question):
    return 0.5 * (answer == question.answer)


def test_settings_are_what_python_has_for_them(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    val = [{"class_path": "mgpo.Scenes", "init_args": {"count": 2, "side": 256, "split": "val"}}]
    for reward in (NumericAnswer, near):
        run = mgpo.fit(
            settings={
                **SMALL,
                "model.reward": reward,
                "data.val": val,
                "data.batch_size": np.int64(2),
                "model.sampler": None,
                "trainer.max_time": None,
            }
        )
        assert (mgpo.MGPO.load_from_checkpoint(run).reward is near) == (reward is near)


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ({"model.reward": lambda answer, question: 1.0}, "<lambda> is in no module, from which other processes"),
        ({"model.reward": NumericAnswer()}, "a NumericAnswer can't be written into a configuration; name its class"),
        ({"modle.seed": 1}, r"--modle\.seed is no key of fit; did you mean --model\.seed"),
        ({"model.reward": "mgpo.rewards.NumericAnser"}, r"there is no .*; did you mean|there is no NumericAnser"),
    ],
)
def test_settings_that_can_not_be_are_told_of(setting, said):
    with pytest.raises(UserError, match=said):
        mgpo.fit(settings={**SMALL, **setting})


@pytest.mark.slow
def test_runs_without_a_logger_keep_their_checkpoints_apart(tmp_path):
    quiet = {**SMALL, "trainer.logger": False, "trainer.default_root_dir": tmp_path}
    runs = [mgpo.fit(settings=quiet) for _ in range(2)]
    assert [run.name for run in runs] == ["version_0", "version_1"]
    assert all(any((run / "checkpoints").glob("*.ckpt")) for run in runs)
    assert not (tmp_path / "checkpoints").exists()


def test_a_model_and_a_run_are_told_apart(tmp_path):
    model = mgpo.load()
    model.save(tmp_path / "export")
    with pytest.raises(
        UserError, match=r"export is a model, and no checkpoint of a run; name it with model\.policy\.path"
    ):
        mgpo.fit(settings={**SMALL, "ckpt_path": tmp_path / "export"})
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.yaml").write_text("model: {}")
    with pytest.raises(UserError, match=r"run is the folder of a run: model\.policy\.start takes a checkpoint of it"):
        mgpo.fit(settings={**SMALL, "model.policy.path": tmp_path / "run"})
    (tmp_path / "picture.ckpt").write_bytes(b"GIF89a" + bytes(99))
    with pytest.raises(UserError, match=r"picture.ckpt can't be read as a checkpoint .*\(it is none\); name another"):
        mgpo.fit(settings={**SMALL, "ckpt_path": tmp_path / "picture.ckpt"})
