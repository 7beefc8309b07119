"""Configurations laid over each other, and those that runs have saved."""

import pytest
import yaml

from mgpo.cli import main
from mgpo.commands.execute import run
from tests.test_cli import ROOT, SMALL

MGPO = str(ROOT / "configs/mgpo.yaml")
OWN = """
data:
  val:
    - {class_path: mgpo.data.Files, init_args: {path: a.jsonl}}
    - {class_path: mgpo.data.Files, init_args: {path: b.jsonl, split: second}}
"""
ADDED = "lightning.pytorch.callbacks.DeviceStatsMonitor"


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def resolved(capsys, *args):
    with pytest.raises(SystemExit):
        run(["fit", "--config", MGPO, *args, "--print_config"])
    return yaml.safe_load(capsys.readouterr().out)


@pytest.mark.parametrize("how", ["a file", "an option", "two words"])
def test_entries_of_a_list_take_over_nothing_of_what_stood_at_their_place(folder, capsys, how):
    (folder / "own.yaml").write_text(OWN)
    value = str(yaml.safe_load(OWN)["data"]["val"])
    args = {"a file": ["--config=own.yaml"], "an option": [f"--data.val={value}"], "two words": ["--data.val", value]}
    val = resolved(capsys, *args[how])["data"]["val"]
    assert [entry["init_args"]["split"] for entry in val] == ["files", "second"]


def test_entries_that_name_no_class_change_those_that_are_there(folder, capsys):
    (folder / "own.yaml").write_text("data: {val: [{init_args: {count: 3}}, {init_args: {count: 4}}]}")
    val = resolved(capsys, "--config=own.yaml")["data"]["val"]
    assert [(entry["init_args"]["count"], entry["init_args"]["split"]) for entry in val] == [(3, "val"), (4, "ood")]


@pytest.mark.parametrize(
    "given",
    [
        ["--config=own.yaml"],
        ["--data.train", "mgpo.data.Files", "--data.train.path=a.jsonl", "--model.lr_scheduler=ConstantLR"],
    ],
)
def test_another_class_takes_over_nothing_of_the_one_before(folder, capsys, given):
    """Scenes has a split too, and LinearLR as many steps."""
    (folder / "own.yaml").write_text(
        "data: {train: {class_path: mgpo.data.Files, init_args: {path: a.jsonl}}}\n"
        "model: {lr_scheduler: {class_path: torch.optim.lr_scheduler.ConstantLR}}\n"
    )
    found = resolved(capsys, *given)
    assert found["data"]["train"]["init_args"]["split"] == "files"
    assert found["model"]["lr_scheduler"]["init_args"]["total_iters"] == 5


def test_the_same_class_keeps_what_it_had(folder, capsys):
    (folder / "own.yaml").write_text("model: {lr_scheduler: {class_path: torch.optim.lr_scheduler.LinearLR}}\n")
    given = ["--config=own.yaml", "--data.train=mgpo.data.Scenes", "--data.train.count=3"]
    found = resolved(capsys, *given)
    train, schedule = found["data"]["train"]["init_args"], found["model"]["lr_scheduler"]["init_args"]
    assert (train["count"], train["split"], schedule["total_iters"]) == (3, "train", 160)


def test_a_file_adds_to_a_list_as_an_option_does(folder, capsys):
    (folder / "own.yaml").write_text(f"trainer: {{callbacks+: [{{class_path: {ADDED}}}]}}")
    paths = [entry["class_path"] for entry in resolved(capsys, "--config=own.yaml")["trainer"]["callbacks"]]
    assert paths[-1] == ADDED and "mgpo.callbacks.LastCheckpoint" in paths


@pytest.mark.parametrize("text", ["data: {val: [1, 2]}", "trainer: {callbacks: [1], callbacks+: [2]}"])
def test_lists_that_are_none_are_told_of(folder, text):
    (folder / "own.yaml").write_text(text)
    with pytest.raises(SystemExit, match=r"^mgpo: [^\n]*(is no Source|stand beside each other)"):
        main(["plan", "--config", "mgpo", "--config", "own.yaml"])


@pytest.mark.parametrize(
    ("given", "remark"),
    [
        ("callbacks: [{class_path: %s}]", "own.yaml puts 1 in place of the 7 trainer.callbacks before"),
        ("callbacks+: [{class_path: %s}]", ""), ("callbacks: null", ""), ("max_epochs: 2", ""),
        ("callbacks: [{init_args: {every_n_steps: 2}}]", ""),
    ],
)  # fmt: skip
def test_callbacks_do_not_go_without_a_word(folder, capsys, monkeypatch, given, remark):
    monkeypatch.setattr("mgpo.commands.execute.execute", lambda *given: None)
    (folder / "own.yaml").write_text(f"trainer: {{{given.replace('%s', ADDED)}}}")
    main(["fit", "--config", "mgpo", "--config", "own.yaml"])
    said = capsys.readouterr().err
    assert remark in said and ("in place of" in said) == bool(remark)
    main(["fit", "--config", "mgpo", f"--trainer.callbacks={ADDED}"])
    assert "--trainer.callbacks puts 1 in place of the 7" in capsys.readouterr().err
    main(["fit", "--config", "mgpo", f"--trainer.callbacks+={ADDED}"])
    assert "in place of" not in capsys.readouterr().err


def test_what_a_run_was_made_with_can_be_planned_looked_at_and_examined(folder, capsys):
    saved = resolved(capsys, *SMALL)
    (folder / "saved.yaml").write_text(yaml.safe_dump(saved))
    main(["plan", "--config", "saved.yaml"])
    main(["data", "--config", "saved.yaml", "--limit=2"])
    assert "Peak:" in capsys.readouterr().out
    (folder / "going_on.yaml").write_text(yaml.safe_dump({**saved, "ckpt_path": "last"}))
    with pytest.raises(SystemExit, match=r"doctor examines the weights of model\.policy"):
        main(["doctor", "--config", "going_on.yaml"])


def test_updates_that_no_epoch_holds_are_told_of(folder, capsys):
    quiet = ["--measure=never", "--preflight=off", "--trainer.logger=false", "--trainer.callbacks=null"]
    run(["fit", "--config", MGPO, *SMALL, *quiet, "--trainer.max_steps=5", "--trainer.enable_checkpointing=false"])
    assert "ended after 2 of 5 updates: trainer.max_epochs 1 leaves no more" in capsys.readouterr().out
    run(["fit", "--config", MGPO, *SMALL, *quiet, "--trainer.max_steps=0", "--trainer.enable_checkpointing=false"])
    assert "ended without an update; see trainer.max_steps" in capsys.readouterr().out


@pytest.mark.slow
def test_a_run_whose_callbacks_save_nothing_says_so(folder, capsys):
    quiet = ["--measure=never", "--preflight=off", "--trainer.log_every_n_steps=1"]
    run(["fit", "--config", MGPO, *SMALL, *quiet, "--trainer.callbacks=mgpo.callbacks.Progress"])
    assert "none of trainer.callbacks saves the weights" in capsys.readouterr().out
    run(["fit", "--config", MGPO, *SMALL, *quiet])
    assert "saves the weights" not in capsys.readouterr().out
