"""The command line on two ranks: every question and every rollout counts once, and all callbacks work together."""

import csv
import json

import pyarrow.parquet as pq
import pytest
import yaml

from mgpo.gallery.page import read_page
from tests.test_cli import ROOT, SMALL, run

WATCHED = ("Progress", "EarlyWarning", "ThroughputMonitor", "GroundingGallery", "RolloutLog")


@pytest.mark.parametrize(
    "strategy",
    ["--trainer.strategy=ddp", pytest.param(f"--config={ROOT}/configs/fsdp.yaml", marks=pytest.mark.slow)],
    ids=["ddp", "fsdp"],
)
def test_two_ranks_count_everything_once(tmp_path, strategy):
    """Five questions on two ranks are padded to six; the report holds five."""
    callbacks = [{"class_path": f"mgpo.callbacks.{name}"} for name in WATCHED]
    callbacks[1]["init_args"] = {"every_n_steps": 1, "rows": 4, "limits": {"window": 5}}
    saver = {"filename": "trained", "save_on_train_epoch_end": True, "enable_version_counter": False}
    callbacks.append({"class_path": "lightning.pytorch.callbacks.ModelCheckpoint", "init_args": saver})
    (tmp_path / "watched.yaml").write_text(yaml.safe_dump({"trainer": {"callbacks": callbacks}}))
    options = ["--config=watched.yaml", strategy, "--trainer.devices=2", "--trainer.log_every_n_steps=1"]
    options += ["--data.train.init_args.count=8", "--data.batch_size=2"]
    options += [SMALL[-1].replace("count: 4", "count: 5"), "--data.num_workers=0"]
    done = run("fit", "--config", str(ROOT / "configs" / "mgpo.yaml"), *options, cwd=tmp_path)
    folder = tmp_path / "runs/mgpo/version_0"
    report = json.loads((folder / "report.json").read_text())
    assert report["n"] == 5 and report["step"] == 2
    assert len(read_page(folder / "gallery.html")["questions"]) == 5  # of both ranks
    assert done.stdout.count("step 2/2") == 1
    shards = sorted((folder / "rollouts").iterdir())
    assert [path.name for path in shards] == [f"rank-{i}-steps-000000-000001.parquet" for i in (0, 1)]
    rows = [row for path in shards for row in pq.read_table(path).to_pylist()]
    assert len({(row["id"], row["rollout"]) for row in rows}) == len(rows) == 8 * 8
    assert len({row["run"] for row in rows}) == 1
    with (folder / "metrics.csv").open() as lines:
        columns = csv.DictReader(lines).fieldnames
    assert {"speed/tokens_per_s", "memory/resident_gb", "train/image_reliance", "warning/image_blind"} <= set(columns)
    if "fsdp" in strategy:
        a_checkpoint_in_shards_serves_one_device(folder, strategy, report)


def a_checkpoint_in_shards_serves_one_device(folder, strategy, report):
    """And whatever reads a run."""
    top = folder.parent.parent.parent
    given = ["--config", str(ROOT / "configs" / "mgpo.yaml"), *SMALL]
    given += [f"--ckpt_path={folder / 'checkpoints/trained.ckpt'}"]
    refused = run("validate", *given, cwd=top, check=False)
    assert "is in shards; add --config configs/fsdp.yaml" in refused.stderr
    run("validate", *given, strategy, "--trainer.devices=1", cwd=top)
    again = json.loads((folder.parent / "version_1/report.json").read_text())
    known = {q["id"]: q["answer"] for q in report["questions"]}
    assert all(q["answer"] == known[q["id"]] for q in again["questions"])
    run("export", "--run=runs/mgpo/version_0", "--output=exported", cwd=top)
    assert (top / "exported/model.safetensors").is_file()
