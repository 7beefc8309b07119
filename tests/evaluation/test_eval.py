"""configs/eval.yaml from end to end: five small benchmarks, the embedded model, a process of its own."""

import json

import datasets
import jsonargparse
import pytest
import yaml

from mgpo.data import benchmarks
from mgpo.evaluation.published import COLUMNS
from mgpo.tools.leaks.command import leaks
from tests.helpers.published import (
    hrbench_rows,
    mme_rows,
    pope_rows,
    snapshot,
    vstar_rows,
    with_images,
    write_jsonl,
    write_tsv,
)
from tests.test_cli import ROOT, run

BENCHMARKS = "mgpo.data.benchmarks"


@pytest.fixture(scope="module")
def evaluated(tmp_path_factory):
    folder = tmp_path_factory.mktemp("eval")
    snapshot(folder / "vstar", with_images(vstar_rows()), "test")
    write_jsonl(folder / "lite.jsonl", mme_rows())
    write_tsv(folder / "hr_bench_4k.tsv", hrbench_rows())
    table = datasets.Dataset.from_list(hrbench_rows())
    snapshot(folder / "hr", table, "hrbench_8k", "hrbench_version_split")
    with_images(pope_rows()).save_to_disk(str(folder / "pope"))
    copies = {
        "VStar": "vstar", "MMERealWorldLite": "lite.jsonl", "HRBench4K": "hr_bench_4k.tsv", "HRBench8K": "hr",
        "POPE": "pope",
    }  # fmt: skip
    named = ", ".join(f"{{class_path: {BENCHMARKS}.{name}, init_args: {{path: {p}}}}}" for name, p in copies.items())
    done = run(
        "validate", "--config", str(ROOT / "configs" / "eval.yaml"),
        f"--data.val=[{named}]",
        "--model.policy.init_args.path=embedded", "--model.policy.init_args.dtype=float32",
        "--model.policy.init_args.max_pixels=15680", "--model.policy.init_args.min_pixels=784",
        "--model.policy.init_args.crop_max_pixels=7840", "--model.eval_sampling.max_new_tokens=16",
        "--trainer.accelerator=cpu", "--trainer.devices=1", "--data.num_workers=0",
        "--trainer.callbacks=[{class_path: mgpo.callbacks.BenchmarkTable, init_args: {row: embedded}}]", cwd=folder,
    )  # fmt: skip
    return folder / "runs/eval/version_0", done


def test_every_benchmark_is_scored_by_its_own_rules(evaluated):
    folder, _ = evaluated
    report = json.loads((folder / "benchmarks.json").read_text())
    scored = report["benchmarks"]
    assert list(scored) == ["V*", "MME-RW-Lite", "HR-4K", "HR-8K", "POPE"]
    assert [benchmark["n"] for benchmark in scored.values()] == [8, 9, 8, 8, 9]
    assert set(scored["HR-8K"]["parts"]) == {"single", "cross", *(f"cycle {i}" for i in range(4))}
    assert set(scored["MME-RW-Lite"]["harness"]) == {"lmms-eval", "VLMEvalKit"}
    assert report["published"]["source"] == "arXiv 2507.05920"
    questions = json.loads((folder / "report.json").read_text())["questions"]
    right = [q["right"] for q in questions if q["split"] == "vstar"]
    assert scored["V*"]["value"] == sum(right) / 8
    assert {q["part"] for q in questions if q["split"] == "hrbench_8k"} == set("0123")


def test_the_published_table_is_printed_and_written(evaluated):
    folder, done = evaluated
    table = (folder / "benchmarks.md").read_text()
    assert "| Qwen2.5-VL-7B + MGPO (published) | 76.4 | 60.5 | 74.2 | 71.2 | 86.1 |" in table
    own = [line for line in table.splitlines() if line.startswith("| embedded")]
    assert [line.split(" |")[0] for line in own] == [
        "| embedded", "| embedded, read as VLMEvalKit does", "| embedded, read as lmms-eval does",
    ]  # fmt: skip
    assert "GPT-4o (published)" in done.stdout and "embedded" in done.stdout
    assert yaml.safe_load((folder / "config.yaml").read_text())["data"]["val"][0]["init_args"]["path"] == "vstar"


@pytest.mark.slow
def test_a_benchmark_that_is_not_there_is_one_sentence(tmp_path):
    done = run(
        "validate", "--config", str(ROOT / "configs" / "eval.yaml"),
        f"--data.val=[{{class_path: {BENCHMARKS}.VStar, init_args: {{path: nowhere}}}}]", cwd=tmp_path, check=False,
    )  # fmt: skip
    assert done.returncode != 0
    assert "nowhere: there is no such file" in done.stderr + done.stdout
    assert "Traceback" not in done.stderr


def test_the_configurations_name_what_there_is():
    """The published sets, resolved without being loaded."""
    evaluated = yaml.safe_load((ROOT / "configs" / "eval.yaml").read_text())["data"]["val"]
    titles = [getattr(benchmarks, source["class_path"].rpartition(".")[2]).title for source in evaluated]
    assert titles == list(COLUMNS)
    parser = jsonargparse.ArgumentParser()
    parser.add_function_arguments(leaks)
    resolved = parser.parse_path(str(ROOT / "configs" / "leaks.yaml"))
    assert resolved.train.init_args.without.class_path == f"{BENCHMARKS}.MMERealWorldLite"
    assert [source.class_path.rpartition(".")[2] for source in resolved.test] == ["VStar", "MMERealWorldLite"]
