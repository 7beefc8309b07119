"""All that can be one's own in one run, from the command line to the export."""

import json
import re

import yaml

import mgpo
from mgpo.cli import main
from tests.conftest import noise_image
from tests.extending.test_own_benchmark import DIALS, rows
from tests.extending.test_own_crop import LYING
from tests.extending.test_own_family import FAMILY, QWEN2_VL
from tests.extending.test_own_reward import NEAR
from tests.helpers.documents import PAGES, blocks
from tests.helpers.families import save_checkpoint
from tests.test_cli import ROOT, SMALL


def documented(name):
    """The file of that name that a page shows."""
    (code,) = {code for text in PAGES.values() for _, code in blocks(text) if code.startswith(f"# {name}.py\n")}
    return code


def test_one_run_takes_all(write_file, tmp_path, capsys):
    own = {name: documented(name) for name in ("my_callbacks", "my_metrics")}
    for name, text in dict(my_rewards=NEAR, my_cuts=LYING, my_benchmarks=DIALS, my_family=QWEN2_VL, **own).items():
        write_file(name, text)
    path = save_checkpoint(FAMILY, tmp_path / "checkpoint")
    policy = {"class_path": "my_family.Qwen2VL", "init_args": {"path": str(path), **FAMILY.caps}}
    dials = {"class_path": "my_benchmarks.Dials", "init_args": {"path": str(rows(tmp_path)), "split": "dials"}}
    overlay = {
        "model": {
            "policy": policy, "reward": "my_rewards.near", "sampling": {"max_new_tokens": 6}, "group_size": 2,
            "dialogue": {"class_path": "mgpo.dialogues.TwoTurn", "init_args": {"cut": "my_cuts.lying"}},
            "eval_sampling": {"max_new_tokens": 6},
        },
        "data": {"val": [dials]},
        "trainer": {"max_steps": 1, "log_every_n_steps": 1, "accelerator": "cpu"},
    }  # fmt: skip
    (tmp_path / "own.yaml").write_text(yaml.safe_dump(overlay))
    callbacks = ("mgpo.callbacks.BenchmarkTable", "my_callbacks.LongestReply", "my_metrics.More")
    arguments = [*SMALL[:-1], "--config", "own.yaml", *(f"--trainer.callbacks+={path}" for path in callbacks)]
    main(["fit", "--config", str(ROOT / "configs" / "mgpo.yaml"), *arguments, "--measure=after"])
    said = capsys.readouterr().out
    assert "preflight: 1" in said and re.search(r"^attribute\S+ [01]\.0 ", said, re.MULTILINE)
    (run,) = tmp_path.glob("runs/mgpo/version_*")
    assert json.loads((run / "benchmarks.json").read_text())["benchmarks"]["Dials"]["score"] == "Dials"
    assert "dials/late_answers" in (run / "metrics.csv").read_text()
    saved = yaml.safe_load((run / "config.yaml").read_text())["model"]
    assert saved["reward"] == "my_rewards.near" and saved["dialogue"]["init_args"]["cut"] == "my_cuts.lying"
    assert len(mgpo.load(run).ask(noise_image(200, 100), "Which?").turns) == 2
