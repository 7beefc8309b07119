"""Pictures behind addresses: what is fetched, what is kept, and what is not even asked for."""

import errno
import hashlib
import ipaddress

import pytest

from mgpo.data import remote_images as web
from mgpo.data.image_columns import Places
from mgpo.errors import UserError
from mgpo.images.decoding import BadImage
from tests.helpers.published import png
from tests.helpers.servers import serving

AWAY = {"away": "ftp://127.0.0.1/0.png", "broken": "http://[::1/0.png", "long": f"http://{'a' * 300}.test/0.png"}


@pytest.fixture(scope="module")
def server():
    """/0 is a picture, /page is not, /home leads to the picture by another name, and AWAY away."""

    def answer(name, port):
        to = f"http://localhost:{port}/0" if name == "home" else AWAY.get(name)
        body = b"<html>Please log in</html>" if name == "page" else png(0)
        return (302, {"Location": to}, body) if to else (200, {}, body)

    with serving(answer) as served:
        yield served


def test_a_picture_is_fetched_once(tmp_path, server):
    address, asked = server
    asked.clear()
    assert [web.fetch(f"{address}/0", tmp_path, private=True) for _ in range(2)] == [png(0)] * 2
    assert asked == ["/0"] and len(list(tmp_path.iterdir())) == 1


def test_a_cache_that_cannot_be_written_is_told_in_a_sentence(tmp_path, server, monkeypatch):
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="a part of the path is a file; make room there"):
        web.fetch(f"{server[0]}/0", tmp_path / "file" / "cache", private=True)
    full = OSError(errno.ENOSPC, "")
    monkeypatch.setattr(web.os, "replace", lambda *_: (_ for _ in ()).throw(full))
    with pytest.raises(UserError, match="the disk is full"):
        web.fetch(f"{server[0]}/0", tmp_path / "cache", private=True)
    assert list((tmp_path / "cache").iterdir()) == []


@pytest.mark.parametrize("name", AWAY)
def test_redirects_that_lead_nowhere_are_refused(tmp_path, server, name):
    with pytest.raises(BadImage, match="can't be fetched"):
        web.fetch(f"{server[0]}/{name}", tmp_path, private=True)


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("file:///etc/passwd", "http and https"), ("ftp://127.0.0.1/0.png", "http and https"),
        ("http://127.0.0.1:9/0.png", "can't be fetched"), ("http://", "can't be fetched"),
        ("http://[::1/0.png", "can't be fetched"), ("http://a:b/0.png", "can't be fetched"),
        ("http://127.0.0.1:99999/", "can't be fetched"), ("http://\ud800/0.png", "can't be fetched"),
    ],
)  # fmt: skip
def test_odd_addresses_are_refused(tmp_path, url, words):
    with pytest.raises(BadImage, match=words):
        web.fetch(url, tmp_path, private=True)


def test_size_and_time_are_bounded(tmp_path, server, monkeypatch):
    address, _ = server
    monkeypatch.setattr(web, "LARGEST_FILE", 1000)
    with pytest.raises(BadImage, match="more than the 1,000 bytes"):
        web.fetch(f"{address}/0", tmp_path, private=True)
    monkeypatch.setattr(web, "LARGEST_FILE", 10**6)
    monkeypatch.setattr(web, "DEADLINE", -1)
    with pytest.raises(BadImage, match="was not there within"):
        web.fetch(f"{address}/0", tmp_path, private=True)
    assert not list(tmp_path.iterdir())


def test_only_what_can_be_used_is_kept(tmp_path, server):
    address, _ = server
    with pytest.raises(BadImage, match="not an image"):
        web.fetch(f"{address}/page", tmp_path, private=True)
    with pytest.raises(BadImage, match="no longer the one"):
        web.fetch(f"{address}/0", tmp_path, hashlib.sha256(png(1)).hexdigest(), private=True)
    assert not list(tmp_path.iterdir())
    web.fetch(f"{address}/0", tmp_path, hashlib.sha256(png(0)).hexdigest(), private=True)
    with pytest.raises(BadImage, match="no longer the one"):
        web.fetch(f"{address}/0", tmp_path, hashlib.sha256(png(1)).hexdigest(), private=True)


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "localhost", "[::1]", "[::ffff:127.0.0.1]", "0.0.0.0", "2130706433", "10.0.0.1",
             "192.168.1.1", "172.16.0.1", "169.254.169.254", "[fe80::1]", "[fc00::1]", "user@127.0.0.1"],
)  # fmt: skip
def test_private_networks_are_not_asked(tmp_path, host):
    picture = Places(tmp_path, tmp_path / "cache").picture(f"http://{host}:9/0.png", "image")
    assert picture is not None
    with pytest.raises(BadImage, match="in a private network"):
        picture.load()


def test_redirects_into_a_private_network_are_not_followed(tmp_path, server, monkeypatch):
    address, asked = server
    asked.clear()
    places = {"127.0.0.1": [], "localhost": [ipaddress.ip_address("127.0.0.1")]}
    monkeypatch.setattr(web, "_addresses", places.__getitem__)
    with pytest.raises(BadImage, match=r"localhost.* in a private network"):
        web.fetch(f"{address}/home", tmp_path)
    assert asked == ["/home"]
    assert web.fetch(f"{address}/home", tmp_path, private=True) == png(0)
