"""The real engine under two trainers whose weights are sharded."""

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


@pytest.mark.parametrize("options", [[], ["--model.policy.init_args.lora.rank=4"]], ids=["whole", "adapters"])
def test_shards_are_put_together_for_every_engine(tmp_path, options):
    """Both engines have the trainers' weights after every update, and one trainer has nothing to validate."""
    noise_image(448, 448).save(tmp_path / "whole.png")
    noise_image(448, 448, 1).save(tmp_path / "torn.jpg")
    (tmp_path / "torn.jpg").write_bytes((tmp_path / "torn.jpg").read_bytes()[:5000])
    rows = [{"image": name, "question": "Which letter?", "answer": "K"} for name in ("torn.jpg", "whole.png")]
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
    command = [
        sys.executable, "-m", "mgpo", "fit",
        *(f"--config={ROOT}/configs/{name}.yaml" for name in ("mgpo", "fsdp", "vllm")),
        "--trainer.devices=2", "--measure=after", "--data.train.init_args.count=12", "--data.batch_size=2",
        f"--data.val=[{{class_path: mgpo.data.Files, init_args: {{path: {tmp_path}/rows.jsonl}}}}]",
        "--trainer.log_every_n_steps=1", "--trainer.callbacks=[]", *options,
    ]  # fmt: skip
    quiet = {"OMP_NUM_THREADS": "1", "VLLM_CPU_OMP_THREADS_BIND": "nobind", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=tmp_path, env=os.environ | quiet, capture_output=True, text=True, timeout=400)
    assert done.returncode == 0, done.stderr[-3000:]
    with open(tmp_path / "runs/mgpo/version_0/metrics.csv") as file:
        gaps = [float(row["train/engine_gap_max"]) for row in csv.DictReader(file) if row.get("train/engine_gap_max")]
    assert "left out: question" in done.stdout
    assert len(gaps) == 3 and max(gaps) < 1e-3
