"""What a server may do with a request that is no reply: each costs its row or ends with a sentence, in bounded time."""

import itertools
import json
import time

import pytest

import mgpo
from mgpo.errors import UserError
from mgpo.inference import client as wire
from mgpo.inference.client import ChatClient, NoReply, ServerError
from mgpo.inference.served import ServedModel
from tests.conftest import noise_image
from tests.helpers.servers import speaking
from tests.helpers.serving import Server

DEEP = b'{"choices": ' + b"[" * 100_000


@pytest.fixture
def slept(monkeypatch):
    """The waits between two tries, which are not waited for."""
    waits = []
    monkeypatch.setattr(wire.time, "sleep", waits.append)
    return waits


def drip(piece, pause=0.05):
    while True:
        time.sleep(pause)
        yield piece


def post(server, **options):
    return ChatClient(server.url, **{"retries": 0, "backoff": 0.0, **options}).request("/chat/completions", {})


@pytest.mark.parametrize(("status", "words"), [(200, r"no reply within 0\.4 s"), (500, "the server answers 500")])
def test_a_reply_that_drips_is_not_waited_for(status, words):
    with Server(lambda *request: (status, drip(b" "))) as server, pytest.raises(NoReply, match=words):
        post(server, timeout=0.4)


@pytest.mark.parametrize("piece", [b"X: 1\r\n", b"x"])
def test_headers_that_drip_are_not_waited_for(piece):
    said = itertools.chain([b"HTTP/1.1 200 OK\r\n"], drip(piece))
    with speaking(said) as url, pytest.raises(NoReply, match=r"no reply within 0\.4 s"):
        ChatClient(url, timeout=0.4, retries=0).request("/models")


@pytest.mark.parametrize("said", [b"", b"SSH-2.0-OpenSSH\r\n", b"\xff" * 99])
def test_what_is_no_http_is_a_broken_connection(said):
    with speaking([said]) as url, pytest.raises(NoReply, match=r"the connection broke \(\w+\), 1 times"):
        ChatClient(url, retries=0).request("/models")


def test_a_reply_that_comes_in_pieces_and_in_time_is_read():
    pieces = [bytes([byte]) for byte in json.dumps({"choices": ["é"]}).encode()]
    with Server(lambda *request: (200, iter(pieces))) as server:
        assert post(server) == {"choices": ["é"]}


@pytest.mark.parametrize(
    ("said", "words", "tries"),
    [
        (DEEP, "no JSON, 3 times", 3),
        (b"\xff\xfe\x00 no text", "no JSON, 3 times", 3),
        (b"9" * 5000, "no JSON, 3 times", 3),
        (b"\n<!DOCTYPE html><title>Sign in</title>", r"a web page \(is the address .*\) and no JSON, 3 times", 3),
        (b"x" * 2000, "more than 1,000 bytes", 1),
        ({"error": {"message": "no slots\x1b[2J"}}, "answers with an error: no slots .2J", 1),
        ({"error": "overloaded", "choices": None}, "answers with an error: overloaded", 1),
    ],
)
def test_what_is_no_reply_costs_the_row(monkeypatch, slept, said, words, tries):
    monkeypatch.setattr(wire, "LARGEST_ANSWER", 1000 if said == b"x" * 2000 else 10**6)
    with Server(lambda *request: (200, said)) as server, pytest.raises(UserError, match=words) as error:
        mgpo.load(server.url, model="x", retries=2).ask(noise_image(64, 64), "Which?")
    assert len(server.seen) == tries and len(str(error.value)) <= 600


@pytest.mark.parametrize("status", [400, 413, 422])
def test_what_the_same_request_would_meet_again_is_not_tried_again(slept, status):
    refusal = {"error": {"message": "no" * 5000}}
    with Server(lambda *request: (status, refusal)) as server, pytest.raises(NoReply, match=str(status)) as error:
        post(server, retries=5)
    assert len(server.seen) == 1 and not slept and len(str(error.value)) <= 600


def test_a_stream_is_refused_in_one_sentence():
    said = b'data: {"choices": []}\n\ndata: [DONE]\n\n'
    answer, words = (200, said, ("Content-Type", "text/event-stream")), "streams its replies; take stream out of extra"
    with Server(lambda *request: answer) as server, pytest.raises(ServerError, match=words):
        post(server, retries=5)
    assert len(server.seen) == 1


@pytest.mark.parametrize(
    ("after", "waited"),
    [
        ("7", 7),
        ("Wed, 21 Oct 2015 07:28:00 GMT", 0),
        ("soon", 5),
        ("-3", 5),
        ("", 5),
    ],
)
def test_a_server_may_say_how_long_to_wait(slept, after, waited):
    with Server(lambda *request: (503, {}, ("Retry-After", after))) as server, pytest.raises(NoReply):
        post(server, retries=1, backoff=5)
    assert slept == [waited]


@pytest.mark.parametrize("after", ["86400", "9" * 400, "Sun, 21 Oct 2125 07:28:00 GMT"])
def test_a_long_rest_is_cut_short_and_spoken_of(slept, after):
    answer, words = (
        (429, {"message": "slow down"}, ("Retry-After", after)),
        r"slow down, and asks for [\d,]{6,} s of rest",
    )
    warned = pytest.warns(UserWarning, match=words + "; trying again in 60 s")
    with Server(lambda *request: answer) as server, warned, pytest.raises(NoReply, match=words + ", 2 times"):
        post(server, retries=1)
    assert slept == [wire.LONGEST_WAIT]


@pytest.mark.parametrize(
    "address",
    [
        "ftp://host",
        "http://",
        "http://[",
        "http://host:port",
        "http://host:99999",
        "http://a b",
        "http://hôst",
        "http://a@b",
    ],
)
def test_what_is_no_address_is_refused_before_anything_is_asked(address):
    with pytest.raises(UserError, match="is no address of a server"):
        ChatClient(address)


@pytest.mark.parametrize(
    "option", [{"timeout": 0}, {"timeout": float("nan")}, {"timeout": float("inf")}, {"retries": -1}, {"backoff": -1.0}]
)
def test_numbers_that_make_no_sense_are_refused(option):
    with pytest.raises(UserError, match="timeout > 0, retries >= 0 and backoff >= 0"):
        ChatClient("http://localhost:1", **option)
    with pytest.raises(UserError, match="parallel is 0"):
        ServedModel("http://localhost:1", "x", parallel=0)


def test_a_server_of_many_models_names_some():
    names = [{"id": f"{'name' * 50}\x1b{i}"} for i in range(300)]
    said = pytest.raises(UserError, match="and 294 more; name one")
    with Server(lambda *request: (200, {"data": names})) as server, said as error:
        mgpo.load(server.url)
    assert len(str(error.value)) <= 600 and "\x1b" not in str(error.value)
