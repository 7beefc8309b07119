"""The command line as a person uses it: real processes, small sizes."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import datasets
import pytest
import wandb
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
    for _ in range(2):
        done = run("fit", "--config", str(ROOT / "configs" / "mgpo.yaml"), *SMALL, cwd=folder)
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
    for version in ("version_0", "version_1"):
        config = yaml.safe_load((folder / "runs/mgpo" / version / "config.yaml").read_text())
        assert config["data"]["train"]["init_args"]["count"] == 4


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


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--model.gruop_size=8"], "--model.gruop_size is no key of fit; did you mean --model.group_size?"),
        (["--data.train=mgpo.data.Files", "--data.train.path=none.jsonl"], "none.jsonl: there is no such file"),
        (["--model.group_size=1"], "at least 2 rollouts"),
        (["--data.val.0.init_args.kinds=[colour]"], "colour"),
    ],
)
def test_mistakes_get_one_sentence(tmp_path, arguments, words):
    done = run("fit", "--config", str(ROOT / "configs" / "mgpo.yaml"), *arguments, cwd=tmp_path, check=False)
    assert done.returncode != 0
    assert words in done.stderr + done.stdout
    assert "Traceback" not in done.stderr


def test_services_without_a_key_are_told_in_a_sentence(monkeypatch):
    def fail(*args, **options):
        raise wandb.errors.UsageError("No API key configured.")

    monkeypatch.setattr("mgpo.commands.trainer_cli.run", fail)
    with pytest.raises(SystemExit, match=r"mgpo: W&B: No API key configured; WANDB_MODE=offline keeps the run on disk"):
        main(["fit", "--config", "mgpo"])


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "fit needs a configuration, such as --config mgpo"),
        (["--config", "fsdp"], "names no model.policy: it goes behind a configuration that does"),
        (["--config", "mgpoo"], "no configuration of that name comes with the package; did you mean mgpo?"),
        (["--config", "mgpo", "--optimizer=Adam"], "--optimizer is no key of fit; did you mean --model.optimizer?"),
        (["--config", "mgpo", "--model.policy=mgpo.policy.Qwen25"], "did you mean mgpo.policy.Qwen25VL?"),
        (["--config", "mgpo", "--model.policy.max_pxels=3"], "no argument max_pxels; did you mean max_pixels?"),
        (["--config", "mgpo", "--data.val.init_args.cout=3"], "mgpo.data.Scenes has no argument cout"),
        (["--config", "models/gemma3_4b"], "no model.dialogue: it goes behind a configuration that does"),
        (["--confg", "mgpo"], "--confg is no key of fit; did you mean --config?"),
        (["--config", "mgpo", "extra"], "'extra' has no key in front of it"),
        (["extra", "--config", "mgpo"], "'extra' has no key in front of it"),
        (["--config", "mgpo", "--data.batch_size", "0"], "data.batch_size is 0; a batch holds at least 1 question"),
        (["--config", "mgpo", "--model.sampling.temperature=0"],
         "model.sampling.temperature is 0; rollouts of a group"),
        (["--config", "mgpo", "--model.epochs", "-1"], "model.epochs is -1"),
        (["--config", "mgpo", "--data.train.init_args.count", "-3"], "count is -3; it should be at least 0"),
        (["--config", "mgpo", "--data.val.count=-3"], "count is -3"),
        (["--config", "mgpo", "--data.train={class_path: mgpo.data.Scenes, init_args: {count: -3}}"], "count is -3"),
        (["--config", "mgpo", "--model.policy.init_args.lora.rank=0"], "lora: rank is 0; it should be at least 1"),
        (["--config", "mgpo", "--trainer.callbacks+=mgpo.callbacks.EarlyWarning",
         "--trainer.callbacks.every_n_steps=0"],
         "mgpo.callbacks.EarlyWarning: every_n_steps is 0"),
        (["--config", "mgpo", "--ckpt_path", "nope.ckpt"], "ckpt_path nope.ckpt: there is no such file or folder"),
        (["--config", "mgpo", "--ckpt_path=best"], "ckpt_path best: there is no such file or folder"),
        (["--config", "mgpo", "--trainer.precision", "16-mixed"], "trainer.precision is 16-mixed; float16 overflows"),
        (["--config", "mgpo", "--trainer.precision", "16"], "trainer.precision is 16; float16 overflows"),
        (["--config", "mgpo", "--model.lr_scheduler", "ReduceLROnPlateau"],
         "ReduceLROnPlateau, which waits for a metric"),
    ],
)  # fmt: skip
def test_what_can_be_seen_to_be_wrong_is_told_before_anything_is_imported(monkeypatch, arguments, words):
    monkeypatch.setitem(sys.modules, "mgpo.commands.trainer_cli", None)  # an import of it fails
    with pytest.raises(SystemExit) as ended:
        main(["fit", *arguments])
    assert words in str(ended.value)


@pytest.mark.parametrize(
    "arguments",
    [
        "validate --ckpt_path hpc",
        "export --run runs/none out",
        "fit --config own.yaml",
        "study --config study --runs.nope.config mgpo",
    ],
)
def test_other_commands_and_files_are_looked_at_before_that_too(monkeypatch, tmp_path, arguments):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, "mgpo.commands.trainer_cli", None)
    Path("own.yaml").write_text("model: {policy: mgpo.policy.Qwen25VL}\ndata: {batch_size: -1}\n")
    with pytest.raises(SystemExit, match=r"mgpo: .*(is -1|no such file|no key in front|no row nope)"):
        main(arguments.split())


@pytest.mark.parametrize(
    "arguments",
    [
        ["--config", "mgpo", "--model.lr_scheduler", "null", "--threads=1", "--data.num_workers", "0"],
        ["-c", "mgpo", "--model.optimizer.init_args.lr", "-1e-3", "--print_config"],
        ["--config=qwen2_5_vl_7b", "--config", "models/gemma3_4b", "--trainer.precision=bf16-mixed"],
        ["--config", "mgpo", "--ckpt_path", "last", "--trainer.callbacks+={class_path: mgpo.callbacks.EarlyWarning}"],
        ["--config", "mgpo", "--model.reward", "mgpo.rewards.Nope"],  # near none of them
    ],
)
def test_what_may_be_right_passes(monkeypatch, arguments):
    begun = []
    monkeypatch.setattr("mgpo.commands.trainer_cli.execute", lambda *given: begun.append(given))
    main(["fit", *arguments])
    assert len(begun) == 1


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
    monkeypatch.setattr("mgpo.commands.trainer_cli.execute", lambda *given: None)
    main(["fit", "--config", "grpo", f"--{argument}"])


def test_an_option_on_a_list_says_which_entry_it_changes(capsys, monkeypatch):
    monkeypatch.setattr("mgpo.commands.trainer_cli.execute", lambda *given: None)
    main(["fit", "--config", "mgpo", "--data.val.init_args.count=3"])
    assert "--data.val.init_args.count changes the last of the 2 in data.val" in capsys.readouterr().err
