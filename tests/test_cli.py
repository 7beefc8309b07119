"""The command line as a person uses it: real processes, small sizes."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import datasets
import pytest
import yaml

from mgpo.cli import main
from mgpo.commands import list_keys
from mgpo.commands.command_table import COMMANDS
from mgpo.gallery.page import read_page

ROOT = Path(__file__).parent.parent
SMALL = [
    "--data.train.init_args.count=4", "--data.batch_size=2", "--data.num_workers=0",
    "--data.val=[{class_path: mgpo.data.Scenes, init_args: {count: 4, side: 512, split: val}}]",
]  # fmt: skip


def run(*args, cwd, check=True):
    environment = {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "OMP_NUM_THREADS": "1",
        "COLUMNS": "200",
        "HF_HUB_OFFLINE": "1",
    }
    done = subprocess.run(
        [sys.executable, "-m", "mgpo", *args], cwd=cwd, env=environment, capture_output=True, text=True, timeout=300
    )
    assert not check or done.returncode == 0, done.stderr[-3000:]
    return done


@pytest.fixture(scope="module")
def fitted(tmp_path_factory):
    """Two runs of the default configuration, cut short."""
    folder = tmp_path_factory.mktemp("fit")
    for seed in range(2):
        config = str(ROOT / "configs" / "mgpo.yaml")
        done = run("fit", "--config", config, *SMALL, f"--seed_everything={seed}", cwd=folder)
    return folder, done


def test_fit_ends_with_a_report_before_and_after(fitted):
    folder, done = fitted
    assert "before → after" in done.stdout
    assert [line for line in done.stderr.splitlines() if not line.startswith("mgpo fit")] == [
        "1,184,832 of 1,184,832 parameters are trained"  # and no library's remarks
    ]
    assert "train/reward" in (folder / "runs/mgpo/version_1/metrics.csv").read_text()  # of data shorter than its rows
    report = json.loads((folder / "runs/mgpo/version_1/report.json").read_text())
    assert report["n"] == 4
    assert report["step"] == 2
    assert report["before"]["step"] == 0
    for name in ("accuracy", "valid_box_ratio", "subimage_accuracy", "by_category", "by_split", "accuracy_interval"):
        assert name in report
    assert report["config"]["model"]["group_size"] == 8
    assert len(report["questions"]) == 4


def test_its_checkpoint_is_evaluated_without_a_word_of_libraries_and_names_no_file_that_goes(fitted):
    folder, _ = fitted
    checkpoint = "runs/mgpo/version_1/checkpoints/trained.ckpt"
    done = run("validate", *SMALL, "--ckpt_path", checkpoint, "--trainer.logger=false", cwd=folder)
    assert [line.partition(" …")[0].split()[0] for line in done.stderr.splitlines()] == ["mgpo", "without"]
    assert "report:" not in done.stdout and "accuracy" in done.stdout


def test_a_second_run_has_its_own_directory_with_its_configuration(fitted):
    folder, _ = fitted
    for seed in range(2):
        config = yaml.safe_load((folder / f"runs/mgpo/version_{seed}/config.yaml").read_text())
        assert config["data"]["train"]["init_args"]["count"] == 4
        assert (config["model"]["seed"], config["data"]["seed"]) == (seed, seed)  # of `seed_everything`


def test_the_page_follows_the_questions_and_opens_without_a_server(fitted):
    folder, _ = fitted
    page = read_page(folder / "runs/mgpo/version_1/gallery.html")
    assert page["steps"] == [0, 2]
    assert len(page["questions"]) == 4
    assert all(len(question["steps"][step]) == 4 for question in page["questions"] for step in ("0", "2"))
    text = (folder / "runs/mgpo/version_1/gallery.html").read_text()
    assert not re.search(r"""(?:src|href)=["']?https?:""", text)


def test_a_run_leaves_its_rollouts_and_says_how_it_goes(fitted):
    folder, done = fitted
    rows = datasets.Dataset.from_parquet(str(folder / "runs/mgpo/version_1/rollouts/*.parquet"))
    assert len(rows) == 2 * 2 * 8
    assert {"step 2/2", "validation 1/1"} <= {line.split("  ")[0] for line in done.stdout.splitlines()}
    assert "\x1b" not in done.stdout


@pytest.mark.slow
def test_a_saved_configuration_and_a_checkpoint_can_be_fed_back(fitted):
    folder, _ = fitted
    run_folder = folder / "runs/mgpo/version_1"
    checkpoint = run_folder / "checkpoints" / "trained.ckpt"
    done = run(
        "validate", "--config", str(ROOT / "configs" / "mgpo.yaml"), *SMALL, f"--ckpt_path={checkpoint}", cwd=folder
    )
    assert "accuracy" in done.stdout
    report = json.loads((run_folder / "report.json").read_text())
    again = json.loads((folder / "runs/mgpo/version_2/report.json").read_text())
    assert [q["answer"] for q in again["questions"]] == [q["answer"] for q in report["questions"]]


@pytest.mark.slow
def test_print_config_can_be_fed_back(tmp_path):
    printed = run("fit", "--config", str(ROOT / "configs" / "mgpo.yaml"), "--print_config", cwd=tmp_path).stdout
    (tmp_path / "again.yaml").write_text(printed)
    again = run("fit", "--config", "again.yaml", "--print_config", cwd=tmp_path).stdout
    assert yaml.safe_load(again) == yaml.safe_load(printed)


def test_validate_takes_the_embedded_default(tmp_path):
    done = run("validate", *SMALL, cwd=tmp_path)
    assert "sub-image alone" in done.stdout
    assert (tmp_path / "runs/mgpo/version_0/report.json").is_file()


@pytest.mark.slow
def test_the_single_turn_baseline_is_one_switch(tmp_path):
    options = ["--model.dialogue=mgpo.dialogues.SingleTurn", *SMALL]
    run("fit", "--config", str(ROOT / "configs" / "mgpo.yaml"), *options, cwd=tmp_path)
    report = json.loads((tmp_path / "runs/mgpo/version_0/report.json").read_text())
    assert report["step"] == 2
    assert report["crop_rate"] == 0  # its boxes are judged, and cut out to be asked about alone, but never shown
    assert report["valid_box_ratio"] is not None
    assert {q["turns"] for q in report["questions"]} == {1}


@pytest.mark.slow
def test_wandb_offline_twice(tmp_path):
    """Two runs, two folders, no network."""
    options = ["--trainer.logger=lightning.pytorch.loggers.WandbLogger", "--trainer.logger.save_dir=runs"]
    options += ["--trainer.logger.offline=true", "--measure=never", *SMALL]
    for _ in range(2):
        run("fit", "--config", str(ROOT / "configs" / "mgpo.yaml"), *options, cwd=tmp_path)
    assert len(list(tmp_path.glob("runs/*/*/config.yaml"))) == 2
    assert len(list(tmp_path.glob("runs/*/*/metrics.csv"))) == 2


@pytest.mark.slow
def test_without_a_logger_a_run_ends_well_and_leaves_nothing(tmp_path):
    done = run("fit", "--config", str(ROOT / "configs/mgpo.yaml"), "--trainer.logger=false", *SMALL, cwd=tmp_path)
    assert "before → after" in done.stdout and "keeps no files" in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_help_explains_every_key(tmp_path):
    text = run("fit", "--help", cwd=tmp_path).stdout
    for key in (
        "--model.group_size",
        "--model.objective.kl_weight",
        "--data.batch_size",
        "--measure",
    ):
        assert key in text
    for words in ("Rollouts for each question", "Questions a step and process"):
        assert words in " ".join(text.split())
    assert "Peak learning rate of stage 2" in " ".join(run("pretrain", "--help", cwd=tmp_path).stdout.split())


@pytest.mark.parametrize("shell", ["bash", "zsh", "tcsh", "fish"])
def test_completion_covers_every_command_and_its_keys(capsys, shell):
    main(["completion", shell])
    script = capsys.readouterr().out
    assert all(command in script for command in COMMANDS)
    assert all(key in script for key in ("model.group_size", "trainer.devices", "question", "resample"))


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("fit --config mgp", "mgpo"),
        ("fit --config loggers/w", "loggers/wandb"),
        ("plan --config own.y", "own.yaml"),
        ("predict --data pic", "pictures.jsonl"),
        ("export --output o", "own.yaml"),
        ("validate --ckpt_path o", "own.yaml"),
    ],
)
def test_bash_completes_configurations_and_files(tmp_path, capsys, line, found):
    for name in ("own.yaml", "pictures.jsonl"):
        (tmp_path / name).touch()
    main(["completion", "bash"])
    ask = f"COMP_WORDS=(mgpo {line}); COMP_CWORD=3; _shtab_mgpo; echo ${{COMPREPLY[@]}}"
    (tmp_path / "complete.sh").write_text(capsys.readouterr().out + "\n" + ask)
    done = subprocess.run(["bash", "complete.sh"], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert found in done.stdout.split(), done.stderr


def test_the_known_keys_are_those_of_the_parsers():
    """`python -m mgpo.commands.list_keys` writes the file anew, a key a line."""
    known, text = list_keys.known_keys(), list_keys.FILE.read_text()
    assert known == json.loads(text)
    assert list_keys.as_text(known).splitlines() == text.splitlines()
    assert all(text.count(f'\n"{key}": [') >= 1 for keys in known["commands"].values() for key in keys)


@pytest.mark.parametrize(("arguments", "words"), [(["help"], "usage: mgpo COMMAND"), (["help", "export"], "--output")])
def test_help_is_a_command_too(capsys, arguments, words):
    main(arguments)
    assert words in capsys.readouterr().out


def test_help_version_and_typos_import_nothing_of_what_trains():
    code = (
        "import sys; from mgpo.cli import main\n"
        "for args in ('--help', '--version', 'fit --help', 'plan --help', 'completion bash'): main(args.split())\n"
        "try: main(['fitt'])\n"
        "except SystemExit as end: assert 'did you mean fit?' in str(end)\n"
        "sys.exit(bool({'torch', 'lightning', 'transformers'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    "argument", ["model.dialogue=mgpo.dialogues.answer_only", "model.sampler=mgpo.vllm.where_installed"]
)
def test_functions_that_make_what_a_key_wants_are_class_paths_too(monkeypatch, argument):
    monkeypatch.setattr("mgpo.commands.execute.execute", lambda *given: None)
    main(["fit", "--config", "grpo", f"--{argument}"])


def test_an_option_on_a_list_says_which_entry_it_changes(capsys, monkeypatch):
    monkeypatch.setattr("mgpo.commands.execute.execute", lambda *given: None)
    main(["fit", "--config", "mgpo", "--data.val.init_args.count=3"])
    assert "--data.val.init_args.count changes the last of the 2 in data.val" in capsys.readouterr().err
