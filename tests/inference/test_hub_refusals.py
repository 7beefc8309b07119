"""Models on the hub that are not pushed or loaded: what the hub refuses, and what a stranger's files may not do."""

import importlib
import json
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest
from huggingface_hub import constants, errors

import mgpo
from mgpo.cli import main
from mgpo.dialogues import TwoTurn
from mgpo.errors import UserError
from mgpo.inference import sharing
from mgpo.policy.hub import checkpoint_files
from mgpo.policy.hub.refusals import refusal
from tests.conftest import noise_image
from tests.helpers.hub import StandIn, cache
from tests.test_cli import run as command

PICTURE = noise_image(300, 200)
HTTP = importlib.import_module(errors.HTTPError.__module__)


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


@pytest.mark.parametrize("name", ["runs/nope", "./x", "/none/x", "a/b/c", "here/x", "~/x"])
def test_what_can_only_be_a_folder_is_not_looked_for_on_the_hub(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "here").mkdir()
    monkeypatch.setattr("transformers.utils.hub.hf_hub_download", lambda *args, **options: pytest.fail("the hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    with pytest.raises(UserError, match="there is no folder"):
        mgpo.load(name)


def test_a_hub_that_does_not_answer_is_asked_once(tmp_path, monkeypatch):
    """Its client would try each file again and again."""
    asked = []

    class Unreachable:
        def head(self, *args, **options):
            asked.append(args)
            raise HTTP.ConnectError("no route")

    checkpoint_files.reached.cache_clear()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(checkpoint_files, "get_session", Unreachable)
    for _ in range(2):
        with pytest.raises(UserError, match="the hub can't be reached from here"):
            mgpo.load("nowhere/model")
    assert len(asked) == 1 and not constants.HF_HUB_OFFLINE
    checkpoint_files.reached.cache_clear()


def test_a_folder_that_is_no_run_names_one(tmp_path):
    run = tmp_path / "runs/mgpo/version_3"
    (run / "checkpoints").mkdir(parents=True)
    (run / "config.yaml").touch()
    (run / "checkpoints/trained.ckpt").touch()
    for folder in (run.parent, run.parent.parent, run / "checkpoints"):
        with pytest.raises(UserError, match=r"holds neither a run .* run (there )?is .*version_3$"):
            mgpo.load(folder)
    (run / "notes.txt").touch()
    with pytest.raises(UserError, match="is a file without a run around it; name the folder of a run"):
        mgpo.load(run / "notes.txt")
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match=r"holds neither a run \(config.yaml\) nor a model \(config.json\)$"):
        mgpo.load(tmp_path / "empty")


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


@pytest.mark.slow
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
