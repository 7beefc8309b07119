"""Models on the hub: pushed with a card of their figures, and loaded by name; a cache and a client stand in."""

import importlib
import json
import shutil
import subprocess
import sys
import threading
from fnmatch import fnmatch
from functools import partial
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
import torch
import yaml
from huggingface_hub import constants, errors

import mgpo
from mgpo.callbacks.report_writer import commit
from mgpo.cli import main
from mgpo.dialogues import TwoTurn
from mgpo.errors import UserError
from mgpo.evaluation.report import summarise
from mgpo.inference import sharing
from mgpo.inference.card_figures import figures
from mgpo.inference.local import Model
from mgpo.policy.hub.checkpoint_files import family_of
from mgpo.policy.hub.refusals import refusal
from mgpo.policy.lora import Lora
from mgpo.utils.configurations import shipped_config
from tests.conftest import make_record, noise_image
from tests.helpers.families import ALL, save_checkpoint
from tests.inference.test_export import shake_adapters
from tests.test_cli import run as command

FAMILY = ALL[0]
PICTURE = noise_image(300, 200)
HTTP = importlib.import_module(errors.HTTPError.__module__)


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """The folder of a cache, with nothing in it and no network behind it."""
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    return tmp_path / "hub"


def cache(hub, name, folder):
    """Put a folder into a cache, as a download does."""
    place = hub / f"models--{name.replace('/', '--')}"
    (place / "refs").mkdir(parents=True)
    (place / "refs" / "main").write_text("0" * 40)
    shutil.copytree(folder, place / "snapshots" / ("0" * 40))


class StandIn:
    """A client whose repositories are in the cache at once."""

    def __init__(self, hub, refuse=None):
        self.hub, self.refuse, self.created = hub, refuse, []

    def __call__(self):
        return self

    def create_repo(self, name, private, exist_ok):
        if self.refuse is not None:
            raise self.refuse
        self.created.append((name, private, exist_ok))
        return f"https://huggingface.co/{name}"

    def upload_folder(self, repo_id, folder_path, commit_message, delete_patterns):
        assert repo_id == self.created[-1][0]
        if (place := self.hub / f"models--{repo_id.replace('/', '--')}").exists():
            (there,) = (place / "snapshots").iterdir()
            gone = [path for path in there.iterdir() if any(fnmatch(path.name, part) for part in delete_patterns)]
            for path in gone:
                path.unlink()
            shutil.copytree(folder_path, there, dirs_exist_ok=True)
        else:
            cache(self.hub, repo_id, folder_path)


@pytest.fixture
def client(hub, monkeypatch):
    """It is online for pushes, and who pushes is known."""
    client = StandIn(hub)
    monkeypatch.setattr(sharing, "HfApi", client)
    monkeypatch.setattr(sharing, "get_token", lambda: "hf_stand_in")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    return client


@pytest.fixture
def offline(monkeypatch):
    return partial(monkeypatch.setattr, constants, "HF_HUB_OFFLINE", True)


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


def response(status, code=None):
    request = HTTP.Request("POST", "https://huggingface.co/api")
    return HTTP.Response(status, headers={"X-Error-Code": code} if code else {}, request=request)


REFUSALS = [
    (errors.RepositoryNotFoundError("a\nb", response=response(404)), "no such repository on the hub, or it is private"),
    (errors.GatedRepoError("a\nb", response=response(403)), "it is gated: ask for access"),
    (errors.HfHubHTTPError("a\nb", response=response(401)), "does not know this token"),
    (errors.HfHubHTTPError("a\nb", response=response(403)), "token here may not do that"),
    (errors.HfHubHTTPError("a\nb", response=response(500)), "answered with status 500"),
    (errors.OfflineModeIsEnabled("a\nb"), "the hub can't be reached"),
    (HTTP.ConnectError("a\nb"), "the hub can't be reached"),
    (HTTP.ReadTimeout("a\nb"), "the hub can't be reached"),
    (ConnectionResetError("a\nb"), "the hub can't be reached"),
    (errors.HFValidationError("a\nb"), "no name of a repository"),
    (errors.LocalTokenNotFoundError("a\nb"), "no token is known here"),
    (RuntimeError("its own words\nb"), "its own words"),
]  # fmt: skip


@pytest.mark.parametrize(("error", "said"), REFUSALS, ids=[said for _, said in REFUSALS])
def test_a_push_that_is_refused_is_one_sentence(tmp_path, monkeypatch, error, said):
    monkeypatch.setattr(sharing, "HfApi", StandIn(tmp_path, error))
    with pytest.raises(UserError, match=said) as raised:
        sharing.push(tmp_path / "out", "jane/signs")
    assert "hf upload jane/signs" in str(raised.value) and "\n" not in str(raised.value)


@pytest.mark.parametrize(("error", "said"), REFUSALS[:-1], ids=[said for _, said in REFUSALS[:-1]])
def test_a_name_that_cannot_be_loaded_is_one_sentence(hub, monkeypatch, error, said):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)

    def refuse(*args, **options):
        raise error

    monkeypatch.setattr("transformers.utils.hub.hf_hub_download", refuse)
    with pytest.raises(UserError, match=said) as raised:
        mgpo.load("owner/name")
    assert "\n" not in str(raised.value) and len(str(raised.value)) <= 600


def test_what_is_no_refusal_is_none():
    assert refusal(ValueError("another")) is None


@pytest.mark.parametrize(
    ("name", "token", "offline", "said"),
    [
        ("signs", "t", False, "owner/name"), ("a/b/c", "t", False, "owner/name"), ("../b", "t", False, "owner/name"),
        ("a/b", None, False, "no token is known here"), ("a/b", "t", True, "HF_HUB_OFFLINE"),
    ],
)  # fmt: skip
def test_what_can_be_known_before_a_push_is_said_before_anything_is_made(
    tmp_path, monkeypatch, name, token, offline, said
):
    monkeypatch.setattr(sharing, "get_token", lambda: token)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", offline)
    with pytest.raises(SystemExit, match=said):
        main(["export", "--run", "embedded", "--output", str(tmp_path / "out"), "--push", name])
    assert not (tmp_path / "out").exists()


def shared_with(hub, tmp_path, change):
    """An export in the cache, whose settings a stranger has changed."""
    mgpo.load().save(tmp_path / "export")
    settings = json.loads((tmp_path / "export/mgpo.json").read_text())
    change(settings)
    (tmp_path / "export/mgpo.json").write_text(json.dumps(settings))
    cache(hub, "evil/model", tmp_path / "export")


STRANGE = {
    "a dialogue": lambda s: s["dialogue"].update(class_path="evil_module.Dialogue"),
    "a dialogue as a text": lambda s: s.update(dialogue="evil_module.Dialogue"),
    "a policy": lambda s: s["policy"].update(class_path="evil_module.Policy"),
    "an argument": lambda s: s["dialogue"]["init_args"].update(rule="evil_module.Rule"),
    "deep inside": lambda s: s["dialogue"]["init_args"].update(rule={"class_path": " evil_module.Rule"}),
    "in a list": lambda s: s["policy"]["init_args"].update(dtype=["evil_module.Rule"]),
}


@pytest.mark.parametrize("where", STRANGE)
def test_a_strangers_classes_are_not_imported(hub, tmp_path, monkeypatch, where):
    shared_with(hub, tmp_path, STRANGE[where])
    (tmp_path / "evil_module.py").write_text("raise SystemExit('imported')")
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(UserError, match=r"evil/model: its mgpo\.json") as error:
        mgpo.load("evil/model")
    assert len(str(error.value)) <= 600 and "evil_module" not in sys.modules


def test_a_dialogue_that_is_handed_over_takes_the_strangers_place(hub, tmp_path):
    shared_with(hub, tmp_path, STRANGE["a dialogue"])
    assert mgpo.load("evil/model", TwoTurn(system="Look.")).dialogue.system == "Look."


@pytest.mark.parametrize(
    "text", ["{", "[]", '{"policy": {}}', '{"policy": [], "eval_sampling": {"max_new_tokens": 3}}']
)
def test_damaged_settings_are_one_sentence(hub, tmp_path, text):
    mgpo.load().save(tmp_path / "export")
    (tmp_path / "export/mgpo.json").write_text(text)
    cache(hub, "owner/damaged", tmp_path / "export")
    with pytest.raises(UserError, match="can't be read as"):
        mgpo.load("owner/damaged")


class Refusing(BaseHTTPRequestHandler):
    """A hub on which everything is private."""

    def do_HEAD(self):
        self.send_response(401)
        self.send_header("X-Error-Code", "RepoNotFound")
        self.send_header("X-Error-Message", "Invalid credentials")
        self.send_header("Content-Length", "0")
        self.end_headers()

    do_GET = do_HEAD

    def log_message(self, *args):
        pass


def test_a_private_repository_by_the_real_client(tmp_path, monkeypatch):
    """The command itself, in an empty cache, against a server that answers as the hub does."""
    PICTURE.save(tmp_path / "a.png")
    with HTTPServer(("127.0.0.1", 0), Refusing) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{server.server_port}")
        monkeypatch.setenv("HF_HOME", str(tmp_path / "home"))
        monkeypatch.setenv("no_proxy", "127.0.0.1")
        options = ["--data", "a.png", "--question", "Which?", "--model", "owner/private"]
        done = _online("predict", *options, cwd=tmp_path)
        server.shutdown()
    assert done.returncode == 1
    (line,) = done.stderr.strip().splitlines()[-1:]
    assert line.startswith("mgpo: owner/private") and "or it is private" in line and "Traceback" not in done.stderr


def _online(*args, cwd):
    with pytest.MonkeyPatch.context() as patch:
        run = subprocess.run
        patch.setattr(subprocess, "run", lambda *a, env, **o: run(*a, env={**env, "HF_HUB_OFFLINE": "0"}, **o))
        return command(*args, cwd=cwd, check=False)


def test_the_cache_by_the_command_itself(tmp_path, monkeypatch):
    """HF_HOME, and no network."""
    mgpo.load().save(tmp_path / "export")
    cache(Path(tmp_path / "home/hub"), "jane/signs", tmp_path / "export")
    PICTURE.save(tmp_path / "a.png")
    monkeypatch.setenv("HF_HOME", str(tmp_path / "home"))
    command("predict", "--data", "a.png", "--question", "Which?", "--model", "jane/signs", cwd=tmp_path)
    (row,) = map(json.loads, (tmp_path / "predictions.jsonl").read_text().splitlines())
    assert row["replies"] == mgpo.load().ask(PICTURE, "Which?").turns
