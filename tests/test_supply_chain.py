"""What is installed is bounded, locked and under licences that somebody looked at; nothing is fetched unasked."""

import json
import os
import subprocess
import sys
import tomllib

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

from tests.conftest import noise_image
from tests.helpers.licences import COPYLEFT, UNKNOWN, direct
from tests.test_cli import ROOT, SMALL

LISTENER = """
import json, os, sys

def hook(event, arguments):
    if event in ("socket.getaddrinfo", "socket.gethostbyname"):
        place = arguments[0]
    elif event in ("socket.connect", "socket.sendto", "socket.sendmsg"):
        place = arguments[1]
    else:
        return
    if place is None:  # sent to where the socket was connected before
        return
    with open(os.environ["PLACES"], "a") as lines:
        lines.write(json.dumps(place[0] if isinstance(place, tuple) else str(place)) + "\\n")

sys.addaudithook(hook)
"""


def locked():
    lines = (ROOT / "tests" / "constraints.txt").read_text().splitlines()
    pairs = [line.split("==") for line in lines if line and not line.startswith("#")]
    return {canonicalize_name(name): Version(version) for name, version in pairs}


def test_the_lock_covers_all_that_is_asked_for_and_keeps_to_its_bounds():
    versions = locked()
    for requirement in direct():
        assert any(part.operator in (">=", "==", "~=") for part in requirement.specifier), f"{requirement} has no bound"
        assert versions[canonicalize_name(requirement.name)] in requirement.specifier


def test_what_extras_ask_for_is_bounded_too():
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    named = [Requirement(line) for lines in extras.values() for line in lines]
    assert len(named) > 10 and all(">=" in str(requirement.specifier) for requirement in named)


def test_every_licence_is_listed_and_each_that_asks_for_something_has_a_remark():
    rows = [line.strip("| ").split(" | ") for line in (ROOT / "tests" / "LICENCES.md").read_text().splitlines()[8:]]
    names = {canonicalize_name(row[0]) for row in rows}
    assert locked().keys() <= names
    for row in rows:
        if COPYLEFT.search(row[1]) or row[1] == UNKNOWN:
            assert len(row) == 3 and row[2].strip("*") != "look at it", row


def test_a_default_run_reaches_for_no_network(tmp_path):
    """No name is resolved and no host is called by anything that Python can see; its own processes may talk.

    Nor are files of one's own reported to anyone.
    """
    noise_image(64, 64).save(tmp_path / "a.png")
    (tmp_path / "own.csv").write_text("image,question,answer\na.png,What?,7\n")
    own = "[{class_path: mgpo.data.Files, init_args: {path: own.csv, split: mine}}]"
    (tmp_path / "listener").mkdir()
    (tmp_path / "listener" / "sitecustomize.py").write_text(LISTENER)
    online = {name: value for name, value in os.environ.items() if "OFFLINE" not in name}
    paths = {
        "PYTHONPATH": f"{tmp_path / 'listener'}:{ROOT}",
        "PLACES": str(tmp_path / "places"),
        "OMP_NUM_THREADS": "1",
    }
    probe = "import socket; socket.socket(socket.AF_INET, socket.SOCK_DGRAM).connect(('192.0.2.1', 9))"
    subprocess.run([sys.executable, "-c", probe], env=online | paths, check=True)
    options = [f"--config={ROOT}/configs/mgpo.yaml", *SMALL, "--data.num_workers=1", f"--data.val={own}"]
    done = subprocess.run(
        [sys.executable, "-m", "mgpo", "fit", *options],
        cwd=tmp_path,
        env=online | paths,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    places = [json.loads(line) for line in (tmp_path / "places").read_text().splitlines()]
    assert places.pop(0) == "192.0.2.1"  # the listener listens
    assert {place for place in places if not place.startswith(("/", "\x00", "127.", "localhost"))} == set()
