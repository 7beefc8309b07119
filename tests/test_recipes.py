"""The published recipe, on a tiny random checkpoint of the same classes saved to disk."""

import difflib
import json
import re
import shlex

import pytest
import yaml

from mgpo.cli import main
from mgpo.dialogues.base import fill
from mgpo.tools.plan import settings
from mgpo.types import Message, Question
from tests.conftest import make_policy, noise_image
from tests.test_cli import ROOT, run


@pytest.fixture(scope="module")
def folder(tokenizer, tmp_path_factory):
    folder = tmp_path_factory.mktemp("recipe")
    policy = make_policy(tokenizer)
    for part in (policy.model, policy.tokenizer, policy.processor):
        part.save_pretrained(folder / "checkpoint")
    rows = []
    for i in range(4):
        noise_image(900, 700, i).save(folder / f"{i}.png")
        rows.append({"image": f"{i}.png", "question": "Which?", "choices": ["a", "b", "c", "d", "e"], "answer": "B"})
    (folder / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return folder


@pytest.mark.parametrize(
    "names",
    [
        pytest.param(["qwen2_5_vl_7b"], marks=pytest.mark.slow),
        pytest.param(["qwen2_5_vl_3b"], marks=pytest.mark.slow),
        pytest.param(["qwen2_5_vl_7b", "qwen2_5_vl_7b_lora"], marks=pytest.mark.slow),
    ],
    ids=lambda names: names[-1],
)
def test_published_recipe_runs(folder, names):
    files = f"{folder}/rows.jsonl"
    source = f"{{class_path: mgpo.data.Files, init_args: {{path: {files}, split: mine}}}}"
    run(
        "fit", *(f"--config={ROOT}/configs/{name}.yaml" for name in names),
        f"--model.policy.init_args.path={folder}/checkpoint", "--model.sampling.max_new_tokens=6",
        "--model.eval_sampling.max_new_tokens=6", f"--data.train={source}", f"--data.val=[{source}]",
        "--data.batch_size=4", "--data.num_workers=0", "--trainer.accelerator=cpu", "--trainer.devices=1",
        "--trainer.num_nodes=1", "--trainer.strategy=auto", "--trainer.max_epochs=1",
        "--measure=after", cwd=folder,
    )  # fmt: skip
    (report,) = folder.glob("runs/mgpo/version_*/report.json") if names == ["qwen2_5_vl_7b"] else [None]
    if report:
        numbers = json.loads(report.read_text())
        assert numbers["step"] == 4  # four mini-batches of one step
        assert numbers["n"] == 4
        published = numbers["config"]["model"]
        objective = published["objective"]
        assert (published["group_size"], objective["kl_weight"], objective["entropy_weight"]) == (8, 0.01, 0.001)
        assert published["optimizer"]["init_args"]["lr"] == 1e-6
        assert published["policy"]["init_args"]["max_pixels"] == 1280 * 28 * 28


@pytest.mark.parametrize("name", ["grpo", "sft"])
def test_baselines_differ_from_mgpo_in_a_handful_of_lines(name):
    ours, theirs = ((ROOT / "configs" / f"{n}.yaml").read_text().splitlines() for n in ("mgpo", name))
    changed = [line for line in difflib.ndiff(ours, theirs) if line[0] in "+-" and "#" not in line]
    assert 0 < len(changed) <= 6, changed


@pytest.mark.slow
def test_the_study_of_the_published_model_is_made_of_commands_that_parse(tmp_path):
    """Every row's configuration is resolved by the command line, without loading a model."""
    done = run("study", "--config", str(ROOT / "configs/study_7b.yaml"), "--dry_run", "true", cwd=ROOT)
    commands = [line.split()[3:] for line in done.stdout.splitlines()]
    assert len(commands) == 8
    for row in ("grpo_half", "sft", "mgpo_three"):
        (command,) = [c for c in commands if f"--trainer.logger.init_args.name={row}" in c]
        command = [part for part in command if not part.startswith("--ckpt_path=")]  # which another row leaves
        resolved = yaml.safe_load(run(*command, "--print_config", cwd=ROOT).stdout)
        logger = resolved["trainer"]["logger"]
        assert logger["init_args"]["version"] == "seed-0" and logger["init_args"]["name"] == row
        dialogue = resolved["model"]["dialogue"]
        assert dialogue["class_path"] == {
            "grpo_half": "mgpo.dialogues.SingleTurn", "sft": "mgpo.dialogues.answer_only",
            "mgpo_three": "mgpo.dialogues.TwoTurn",
        }[row]  # fmt: skip
        assert resolved["model"]["supervised"] is (row == "sft")
        assert resolved["model"]["policy"]["init_args"]["max_pixels"] == (640 if row == "grpo_half" else 1280) * 28 * 28


CLAIM = re.compile(r"^# By plan: (fits|does not fit) (\d+) GPUs? of (\d+) GB(?: with (--.*))?\.$", re.MULTILINE)
RECIPE = ROOT / "configs/qwen2_5_vl_7b.yaml"
GPU = sorted(path for path in ROOT.glob("configs/**/*.yaml") if "By plan" in path.read_text())


def head(path):
    return path.read_text().split("\nmodel:")[0].split("\nseed_everything")[0]


def test_whatever_needs_gpus_says_which():
    assert {"qwen2_5_vl_3b", "qwen2_5_vl_7b", "qwen2_5_vl_7b_lora"} < {path.stem for path in GPU}
    for path in ROOT.glob("configs/**/*.yaml"):
        promised = [line for line in head(path).splitlines() if re.search(r"\bGPUs? of", line)]
        assert all(CLAIM.match(line) for line in promised), promised


@pytest.mark.parametrize("sampler", ["vllm", "in process"])
@pytest.mark.parametrize("path", GPU, ids=lambda path: path.stem)
def test_what_a_head_claims_is_what_plan_says(path, sampler, tmp_path, monkeypatch):
    monkeypatch.setattr(settings, "is_installed", lambda: sampler == "vllm")
    base = [] if "seed_everything:" in path.read_text() else [f"--config={RECIPE}"]
    claims = CLAIM.findall(head(path))
    assert claims
    for verb, count, gigabytes, keys in claims:
        output = tmp_path / "plan.json"
        main(
            [
                "plan",
                *base,
                f"--config={path}",
                *shlex.split(keys),
                f"--memory={gigabytes}",
                f"--output={output}",
            ]
        )
        report = json.loads(output.read_text())
        devices = report["launch"]["devices"]
        assert devices["count"] * devices["nodes"] == int(count)
        assert report["device"]["fits"] is (verb == "fits"), report["memory"]["assumed"]
        if verb == "fits":
            assert report["launch"]["micro_tokens"] <= report["filled"]


QUESTION = Question("1", None, "Which?", "a", ("a", "b"))  # type: ignore


@pytest.mark.parametrize("name", ["qwen2_5_vl_3b", "qwen2_5_vl_7b"])
def test_a_recipe_s_own_texts_have_their_slots_and_ask_for_reasoning(name):
    texts = yaml.safe_load((ROOT / f"configs/{name}.yaml").read_text())["model"]["dialogue"]["init_args"]
    view = object()
    for key in ("show_region", "show_whole"):
        shown = fill(texts[key], QUESTION, view, reason="it is too small")  # type: ignore
        assert view in shown
        text = "".join(part for part in Message("user", shown).parts if isinstance(part, str))
        assert "Which?\n(A) a\n(B) b\n" in text and text.endswith("answer inside \\boxed{}.")
        assert "Reason step by step" in text and not re.search(r"\{\w+\}", text)
        assert ("it is too small" in text) is (key == "show_whole")
