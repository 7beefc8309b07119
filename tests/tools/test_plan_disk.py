"""What `plan` says of the disk, against what a run leaves there."""

import json

import pytest

from mgpo.cli import main
from mgpo.tools.plan.disk import format_disk
from tests.test_cli import ROOT, SMALL, run

CONFIG = f"--config={ROOT}/configs/mgpo.yaml"


def planned(folder, *options):
    main(["plan", CONFIG, f"--output={folder}/plan.json", *options])
    return json.loads((folder / "plan.json").read_text())["disk"]


@pytest.mark.slow
def test_a_run_leaves_what_was_planned(tmp_path, capsys):
    needed = planned(tmp_path)
    assert "2 checkpoints of 0.0142 GB" in capsys.readouterr().out
    run("fit", CONFIG, *SMALL, "--measure=never", "--trainer.callbacks.every_n_train_steps=1", cwd=tmp_path)
    folder = tmp_path / "runs/mgpo/version_0"
    sizes = {path.name: path.stat().st_size for path in (folder / "checkpoints").iterdir()}
    assert len(sizes) <= needed["kept"]
    for size in sizes.values():
        assert size == pytest.approx(needed["checkpoint"], rel=0.1)
    assert (folder / "gallery.html").stat().st_size < needed["page"] == 20_000_000
    assert sum(path.stat().st_size for path in (folder / "rollouts").iterdir()) < needed["rollouts"] == 10**10


def test_what_is_kept_is_counted(tmp_path):
    saver = "{class_path: lightning.pytorch.callbacks.ModelCheckpoint, init_args: {save_top_k: %d, save_last: %s}}"
    log = "{class_path: mgpo.callbacks.RolloutLog, init_args: {keep_gb: 2}}"
    needed = planned(tmp_path, f"--trainer.callbacks=[{saver % (3, 'true')}, {log}]")
    assert needed["kept"] == 4 and needed["rollouts"] == 2 * 10**9 and needed["page"] == 0
    assert planned(tmp_path, f"--trainer.callbacks={log}")["rollouts"] == 2 * 10**9  # one alone is no list
    all_kept = planned(tmp_path, f"--trainer.callbacks=[{saver % (-1, 'false')}]")
    assert all_kept["kept"] is None
    assert format_disk(all_kept).startswith("Disk: every checkpoint is kept, 0.0142 GB each; one more")
    assert planned(tmp_path, "--trainer.callbacks=null", "--trainer.enable_checkpointing=false")["kept"] == 0
