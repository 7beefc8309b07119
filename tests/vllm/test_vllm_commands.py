"""The real engine under commands: behind an evaluation, and under two trainers whose weights are sharded."""

import csv
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import noise_image

ROOT = Path(__file__).parents[2]

pytestmark = pytest.mark.vllm
pytest.importorskip("vllm", exc_type=ImportError, reason="vLLM is not installed")


def fit(folder, *options):
    """The largest gap between engine and trainer of each step, and what the command printed."""
    command = [sys.executable, "-m", "mgpo", "fit", *options, "--trainer.log_every_n_steps=1", "--trainer.callbacks=[]"]
    quiet = {"OMP_NUM_THREADS": "1", "VLLM_CPU_OMP_THREADS_BIND": "nobind", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=folder, env=os.environ | quiet, capture_output=True, text=True, timeout=400)
    assert done.returncode == 0, done.stderr[-3000:]
    with open(folder / "runs/mgpo/version_0/metrics.csv") as file:
        rows = [row["train/engine_gap_max"] for row in csv.DictReader(file) if row.get("train/engine_gap_max")]
    return [float(row) for row in rows], done.stdout + done.stderr


def configs(*names):
    return [f"--config={ROOT}/configs/{name}.yaml" for name in names]


def test_an_engine_that_an_evaluation_started_takes_weights_in_training(tmp_path):
    """Lightning evaluates in inference mode, in which nothing may be made that is to be changed outside of it."""
    val = "--data.val=[{class_path: mgpo.data.Scenes, init_args: {count: 2, side: 448, split: val}}]"
    sizes = ["--data.train.init_args.count=6", "--data.batch_size=2", "--model.group_size=2"]
    gaps, said = fit(tmp_path, *configs("mgpo", "vllm"), "--preflight=off", "--measure=both", val, *sizes)
    assert len(gaps) == 3 and max(gaps) < 1e-3
    assert "accuracy" in said and "sync_dist" not in said


@pytest.mark.parametrize("options", [[], ["--model.policy.init_args.lora.rank=4"]], ids=["whole", "adapters"])
def test_shards_are_put_together_for_every_engine(tmp_path, options):
    """Both engines have the trainers' weights after every update, and one trainer has nothing to validate."""
    noise_image(448, 448).save(tmp_path / "whole.png")
    noise_image(448, 448, 1).save(tmp_path / "torn.jpg")
    (tmp_path / "torn.jpg").write_bytes((tmp_path / "torn.jpg").read_bytes()[:5000])
    rows = [{"image": name, "question": "Which letter?", "answer": "K"} for name in ("torn.jpg", "whole.png")]
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
    gaps, said = fit(
        tmp_path, *configs("mgpo", "fsdp", "vllm"), "--trainer.devices=2", "--measure=after",
        "--data.train.init_args.count=12", "--data.batch_size=2",
        f"--data.val=[{{class_path: mgpo.data.Files, init_args: {{path: {tmp_path}/rows.jsonl}}}}]", *options,
    )  # fmt: skip
    assert "left out: question" in said
    assert len(gaps) == 3 and max(gaps) < 1e-3
