"""Models on the hub: pushed with a card of their figures, and loaded by name; a cache and a client stand in."""

import json
import shutil
from pathlib import Path

import pytest
import torch
import yaml

import mgpo
from mgpo.callbacks.report_writer import commit
from mgpo.cli import main
from mgpo.dialogues import TwoTurn
from mgpo.errors import UserError
from mgpo.evaluation.report import summarise
from mgpo.inference import sharing
from mgpo.inference.card_figures import figures
from mgpo.inference.export import export
from mgpo.inference.local import Model
from mgpo.inference.saving import merged_weights
from mgpo.policy.hub.checkpoint_files import family_of
from mgpo.policy.lora import Lora
from mgpo.utils.configurations import shipped_config
from tests.conftest import make_record, noise_image
from tests.helpers.families import ALL, save_checkpoint
from tests.helpers.hub import cache
from tests.inference.test_export import shake_adapters
from tests.test_cli import run as command

FAMILY = ALL[0]
PICTURE = noise_image(300, 200)


@pytest.fixture
def trained(tmp_path):
    """The folder of a run, with a report."""
    folder = tmp_path / "runs/mine/version_0"
    (folder / "checkpoints").mkdir(parents=True)
    shutil.copy(shipped_config("mgpo"), folder / "config.yaml")
    weights = {f"policy.{name}": value for name, value in mgpo.load().policy.state_dict().items()}
    state = {"state_dict": weights, "global_step": 160, "pytorch-lightning_version": "2.6.0"}
    torch.save(state, folder / "checkpoints/trained.ckpt")
    before, after = ([make_record(str(i), right=i < n) for i in range(8)] for n in (2, 6))
    config = yaml.safe_load((folder / "config.yaml").read_text())
    report = {**summarise(after), "step": 160, "commit": "abc1234", "config": config, "before": summarise(before)}
    (folder / "report.json").write_text(json.dumps(report))
    return folder


def test_a_run_is_pushed_and_loaded_by_its_name(trained, client, offline, tmp_path, capsys):
    main(["export", "--run", str(trained), "--output", str(tmp_path / "out"), "--push", "jane/street-signs"])
    assert client.created == [("jane/street-signs", True, True)]
    assert "pushed: https://huggingface.co/jane/street-signs" in capsys.readouterr().out
    offline()
    shared, own = mgpo.load("jane/street-signs"), mgpo.load(trained)
    assert shared.max_new_tokens == own.max_new_tokens == 32
    assert shared.resolution == own.resolution and vars(shared.dialogue)["system"] == own.dialogue.system
    assert shared.dialogue.rule == own.dialogue.rule != TwoTurn().rule
    assert shared.ask(PICTURE, "Which?").turns == own.ask(PICTURE, "Which?").turns
    PICTURE.save(tmp_path / "a.png")
    options = ["--model", "jane/street-signs", "--output", str(tmp_path / "p.jsonl"), "--question", "Which?"]
    main(["predict", "--data", str(tmp_path / "a.png"), *options])
    (row,) = map(json.loads, (tmp_path / "p.jsonl").read_text().splitlines())
    assert row["replies"] == own.ask(PICTURE, "Which?").turns


def test_the_card_has_the_figures_of_the_run(trained, client, tmp_path):
    main(
        ["export", "--run", str(trained), "--output", str(tmp_path / "out"), "--push", "jane/signs", "--private=false"]
    )
    assert client.created == [("jane/signs", False, True)]
    card = (tmp_path / "out/README.md").read_text()
    assert "After 160 optimiser updates" in card and "commit abc1234" in card
    assert "| val | 8 | 0.750 (0.41–0.93), before 0.250 | 1.000 (0.68–1.00), before 1.000 |" in card
    assert "| `model.optimizer.init_args.lr` | 0.00015 |" in card
    assert 'mgpo.load("jane/signs")' in card and "vllm serve jane/signs" in card and "this/folder" not in card
    assert str(tmp_path) not in card and "runs" not in card
    front = yaml.safe_load(card.split("---")[1])
    assert front["library_name"] == "transformers"
    assert "What it reaches" not in _card_of(mgpo.load(), tmp_path / "plain")


def test_a_checkpoint_of_another_step_has_no_figures_of_the_last_one(trained, tmp_path):
    """Such as the best of a run, or what an interrupted one has left beside the report of its beginning."""
    checkpoint = trained / "checkpoints/trained.ckpt"
    state = torch.load(checkpoint, weights_only=True)
    torch.save(state | {"global_step": 80}, trained / "checkpoints/best.ckpt")
    card = _card_of(mgpo.load(trained / "checkpoints/best.ckpt"), tmp_path / "best")
    assert "After 80 optimiser updates, and not evaluated: the run's report is of 160 updates." in card
    assert "0.750" not in card and "`model.optimizer.init_args.lr`" in card
    assert "After 160 optimiser updates" in _card_of(mgpo.load(checkpoint), tmp_path / "trained")


def _card_of(model, folder):
    model.save(folder)
    return (folder / "README.md").read_text()


def test_a_run_says_of_which_commit_its_report_is():
    assert commit() == "" or set(commit()) <= set("0123456789abcdef")


HOSTILE_REPORTS = [
    "", "[]", "{}", "[" * 10**5, '{"by_split": 3, "step": 1}', '{"by_split": {}, "step": "many"}',
    '{"by_split": {"val": {"n": 1, "accuracy": "x"}}, "step": 1}',
    '{"by_split": {"val": {"n": 1, "accuracy": 0.5}}, "step": 1}', '{"by_split": {"v": []}, "step": 1}',
    '{"by_split": {}, "step": 1, "before": 3}', '{"by_split": {"v": {}}, "step": 1, "before": {"by_split": 3}}',
]  # fmt: skip


@pytest.mark.parametrize("text", HOSTILE_REPORTS, ids=range(len(HOSTILE_REPORTS)))
def test_a_damaged_report_is_one_sentence(tmp_path, text):
    (tmp_path / "report.json").write_text(text)
    with pytest.raises(UserError, match=r"report\.json can't be read as a run's report"):
        figures(tmp_path)


def test_what_a_report_says_stays_a_cell(tmp_path):
    report = summarise([make_record(split="a|b\n# <script>")]) | {"step": 1, "config": {"model": {"seed": "`|\n# x"}}}
    (tmp_path / "report.json").write_text(json.dumps(report))
    said = figures(tmp_path)
    assert "\n# " not in said and "| a\\|b # \\<script\\> | 1 |" in said and "| `model.seed` | \\`\\| # x |" in said


@pytest.fixture
def adapted(hub, tmp_path):
    """Adapters on a base that is on the hub."""
    cache(hub, "owner/base", save_checkpoint(FAMILY, tmp_path / "base"))
    policy = family_of("owner/base")("owner/base", lora=Lora(4), **FAMILY.caps).load().eval()
    shake_adapters(policy)
    return Model(policy, TwoTurn(), 8)


def test_adapters_alone_are_loaded_by_their_name(adapted, hub, tmp_path):
    adapted.save(tmp_path / "adapters", merge=False, name="owner/adapters")
    files = {path.name for path in (tmp_path / "adapters").iterdir()}
    assert "adapter_model.safetensors" in files and "model.safetensors" not in files
    front = yaml.safe_load((tmp_path / "adapters/README.md").read_text().split("---")[1])
    assert (front["library_name"], front["base_model"]) == ("peft", "owner/base")
    cache(hub, "owner/adapters", tmp_path / "adapters")
    again = mgpo.load("owner/adapters")
    assert again.policy.lora is not None and again.max_new_tokens == 8
    assert again.ask(PICTURE, "Which?").turns == adapted.ask(PICTURE, "Which?").turns


def test_the_card_of_adapters_has_them_added_before_a_server_is_started(adapted, hub, tmp_path):
    adapted.save(tmp_path / "adapters", merge=False, name="owner/adapters")
    card = (tmp_path / "adapters/README.md").read_text()
    assert "mgpo export --run owner/adapters --output whole\n    vllm serve whole " in card
    cache(hub, "owner/adapters", tmp_path / "adapters")
    export("owner/adapters", str(tmp_path / "whole"))
    whole = mgpo.load(tmp_path / "whole").policy.model.state_dict()
    assert all(torch.equal(whole[name], value) for name, value in merged_weights(adapted.policy.model))
    assert "mgpo export" not in (tmp_path / "whole/README.md").read_text()


def test_a_model_takes_the_place_of_adapters_in_its_repository(adapted, offline, request, tmp_path):
    for merge in (False, True):
        adapted.save(tmp_path / f"{merge}", merge=merge, name="jane/both")
    request.getfixturevalue("client")  # a save asks the hub for the base's files, if it may
    for merge in (False, True):
        sharing.push(tmp_path / f"{merge}", "jane/both")
    offline()
    again = mgpo.load("jane/both")
    assert again.policy.lora is None
    assert again.ask(PICTURE, "Which?").turns == adapted.ask(PICTURE, "Which?").turns


def test_adapters_of_a_base_that_is_here_alone_are_not_pushed(tmp_path):
    base = str(save_checkpoint(FAMILY, tmp_path / "base"))
    model = Model(family_of(base)(base, lora=Lora(4), **FAMILY.caps).load().eval(), TwoTurn())
    with pytest.raises(UserError, match=r"base is a folder here, which jane/a can't point to; leave out --merge false"):
        model.save(tmp_path / "out", merge=False, name="jane/a")
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_the_cache_by_the_command_itself(tmp_path, monkeypatch):
    """HF_HOME, and no network."""
    mgpo.load().save(tmp_path / "export")
    cache(Path(tmp_path / "home/hub"), "jane/signs", tmp_path / "export")
    PICTURE.save(tmp_path / "a.png")
    monkeypatch.setenv("HF_HOME", str(tmp_path / "home"))
    command("predict", "--data", "a.png", "--question", "Which?", "--model", "jane/signs", cwd=tmp_path)
    (row,) = map(json.loads, (tmp_path / "predictions.jsonl").read_text().splitlines())
    assert row["replies"] == mgpo.load().ask(PICTURE, "Which?").turns
