"""What is wrong on a command line is told in a sentence, as early as it can be seen; what may be right passes."""

import json
import sys
from pathlib import Path

import pytest
import wandb

from mgpo.cli import main
from mgpo.utils.own_code import is_function
from tests.test_cli import ROOT, run


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--model.gruop_size=8"], "--model.gruop_size is no key of fit; did you mean --model.group_size?"),
        pytest.param(
            ["--data.train=mgpo.data.Files", "--data.train.path=none.jsonl"],
            "none.jsonl: there is no such file",
            marks=pytest.mark.slow,
        ),
        (["--model.group_size=1"], "at least 2 rollouts"),
        pytest.param(["--data.val.0.init_args.kinds=[colour]"], "colour", marks=pytest.mark.slow),
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

    monkeypatch.setattr("mgpo.commands.execute.run", fail)
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
         "--trainer.callbacks.every_n_steps=-1"],
         "mgpo.callbacks.EarlyWarning: every_n_steps is -1"),
        (["--config", "mgpo", "--trainer.callbacks+=mgpo.callbacks.GroundingGallery",
         "--trainer.callbacks.every_n_steps=0"],
         "mgpo.callbacks.GroundingGallery: every_n_steps is 0"),
        (["--config", "mgpo", "--model.reward={class_path: mgpo.rewards.NumericAnswer, init_arg: {absolute: 1}}"],
         "--model.reward: a class has no key init_arg; did you mean init_args?"),
        (["--config", "mgpo", "--model.reward={class_pth: mgpo.rewards.NumericAnswer}"], "did you mean class_path?"),
        (["--config", "mgpo", "--ckpt_path", "nope.ckpt"], "ckpt_path nope.ckpt: there is no such file or folder"),
        (["--config", "mgpo", "--ckpt_path=best"], "ckpt_path best: there is no such file or folder"),
        (["--config", "mgpo", "--trainer.precision", "16-mixed"], "trainer.precision is 16-mixed; float16 overflows"),
        (["--config", "mgpo", "--trainer.precision", "16"], "trainer.precision is 16; float16 overflows"),
        (["--config", "mgpo", "--model.lr_scheduler", "ReduceLROnPlateau"],
         "ReduceLROnPlateau, which waits for a metric"),
    ],
)  # fmt: skip
def test_what_can_be_seen_to_be_wrong_is_told_before_anything_is_imported(monkeypatch, arguments, words):
    monkeypatch.setitem(sys.modules, "mgpo.commands.execute", None)  # an import of it fails
    with pytest.raises(SystemExit) as ended:
        main(["fit", *arguments])
    assert words in str(ended.value)


def test_callbacks_that_lightning_cannot_tell_apart(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    same = ["--trainer.callbacks+=mgpo.callbacks.LastCheckpoint", "--trainer.callbacks.every_n_train_steps=40"]
    with pytest.raises(SystemExit, match="mgpo: trainer: Found more than one stateful callback of type `LastCheckpoin"):
        main(["fit", "--config", "mgpo", *same])


@pytest.mark.parametrize(
    "arguments",
    [
        "validate --ckpt_path hpc",
        "export --run runs/none out",
        "fit --config own.yaml",
        "study --config study --runs.nope.config mgpo",
        "validate --config overlay.yaml",
        "data --config overlay.yaml",
    ],
)
def test_other_commands_and_files_are_looked_at_before_that_too(monkeypatch, tmp_path, arguments):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, "mgpo.commands.execute", None)
    Path("own.yaml").write_text("model: {policy: mgpo.policy.Qwen25VL}\ndata: {batch_size: -1}\n")
    Path("overlay.yaml").write_text("data: {batch_size: 4}\n")
    with pytest.raises(SystemExit, match=r"mgpo: .*(is -1|no such file|no key in front|no row nope|no model.policy)"):
        main(arguments.split())


@pytest.mark.parametrize("gives", ["", " -> float", " -> Verdict"])
@pytest.mark.parametrize(
    "given",
    [
        ["--model.reward={class_path: rewards_of_mine.near, init_args: {tolerance: 0.1}}"],
        ["--model.reward", "rewards_of_mine.near", "--model.reward.tolerance", "0.1"],
        ["--model.shaping=[{class_path: rewards_of_mine.near, init_args: {tolerance: 0.1}}]"],
        [
            "--model.dialogue={class_path: mgpo.dialogues.TwoTurn, init_args: {cut: "
            "{class_path: rewards_of_mine.near, init_args: {tolerance: 0.1}}}}"
        ],
        ["--config", "own.yaml"],
    ],
)
def test_arguments_of_a_function_are_not_passed_over(monkeypatch, tmp_path, given, gives):
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "rewards_of_mine", raising=False)
    head = "from mgpo.rewards import Verdict\n" if gives == " -> Verdict" else ""
    Path("rewards_of_mine.py").write_text(f"{head}def near(answer, question, tolerance=0.5){gives}: ...\n")
    Path("own.yaml").write_text(
        "model: {reward: {class_path: mgpo.rewards.BySource, init_args: {rewards: {signs: "
        "{class_path: rewards_of_mine.near, init_args: {tolerance: 0.1}}}}}}\n"
    )
    with pytest.raises(SystemExit, match=r"rewards_of_mine.near is a function, which takes no tolerance from a config"):
        main(["fit", "--config", "mgpo", *given])


def test_a_schedule_that_is_a_function_is_told_so(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    given = {"class_path": "transformers.get_cosine_schedule_with_warmup", "init_args": {"num_warmup_steps": 10}}
    with pytest.raises(SystemExit, match=r"warmup is a function; name a class of schedules, such as torch.*OneCycleLR"):
        main(["fit", "--config", "mgpo", f"--model.lr_scheduler={json.dumps(given)}"])


def test_a_function_as_schedule_takes_no_arguments(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    head = "from torch.optim.lr_scheduler import LRScheduler\n"
    Path("schedules_of_mine.py").write_text(f"{head}def warm(optimizer, n=1) -> LRScheduler: ...\n")
    arguments = ["--model.lr_scheduler", "schedules_of_mine.warm", "--model.lr_scheduler.n", "3"]
    with pytest.raises(SystemExit, match=r"model\.lr_scheduler: n='?3'? belongs to no class; name one"):
        main(["fit", "--config", "mgpo", *arguments])


def test_completion_has_help(capsys):
    main(["completion", "--help"])
    assert "mgpo completion bash|zsh|tcsh|fish" in capsys.readouterr().out


def test_what_makes_a_reward_may_have_arguments(monkeypatch, tmp_path):
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "makers_of_mine.py").write_text(
        "from mgpo.rewards import Reward\ndef near(tolerance: float) -> Reward: ...\n"
    )
    assert not is_function("makers_of_mine.near")


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
    monkeypatch.setattr("mgpo.commands.execute.execute", lambda *given: begun.append(given))
    main(["fit", *arguments])
    assert len(begun) == 1


@pytest.mark.parametrize("by_lightning", [False, True])
def test_an_interruption_ends_without_a_traceback(monkeypatch, capsys, by_lightning):
    def interrupted(*given):
        try:
            raise KeyboardInterrupt
        except KeyboardInterrupt:
            if not by_lightning:
                raise
            sys.exit(1)  # as its trainer.validate does

    monkeypatch.setattr("mgpo.commands.execute.execute", interrupted)
    with pytest.raises(SystemExit) as ended:
        main(["predict", "--data", "none"])
    assert ended.value.code == 130 and capsys.readouterr().err.endswith("mgpo: interrupted\n")
