"""A served model answers as the one in process does; what a server does wrong costs a row, or ends with a sentence."""

import json
import time
from dataclasses import replace

import pytest

import mgpo
from mgpo.data.scenes import Scenes
from mgpo.data.unlabelled import unlabelled_questions
from mgpo.dialogues import BlindAnswer, FreeTurns, SingleTurn
from mgpo.errors import UserError
from mgpo.images.views import Frame
from mgpo.inference.client import ChatClient, NoReply, ServerError
from mgpo.inference.predict import predict
from mgpo.inference.served import read_reply
from mgpo.world.model import CAPS
from tests.conftest import noise_image
from tests.helpers.serving import Engine, Server

CUT = "]\n```"


@pytest.fixture(scope="module")
def model():
    return mgpo.load()


@pytest.fixture(scope="module")
def server(model):
    with Server(Engine(model.policy)) as server:
        yield server


def connect(server, model, **options):
    return mgpo.load(server.url, model.dialogue, **{"max_new_tokens": 32, **CAPS, **options})


def test_greedy_answers_equal_those_in_process(model, server):
    served = connect(server, model)
    assert served.model == "tiny"  # the only one; the server said so
    source = Scenes(12, ("attribute", "attribute_choice"), split="val", side=512)
    ours, theirs = model.evaluate(source), served.evaluate(source)
    assert any(record.crops for record in ours) and any(record.fallback for record in ours)
    for one, other in zip(ours, theirs, strict=True):
        assert other.logprob == pytest.approx(one.logprob, abs=1e-3)
        assert replace(other, logprob=one.logprob) == one  # replies, boxes, regions, sub-image alone, lengths


@pytest.mark.parametrize("dialogue", [SingleTurn(), FreeTurns(turns=3), BlindAnswer()])
def test_other_dialogues(model, server, dialogue):
    served = mgpo.load(server.url, dialogue, max_new_tokens=48, **CAPS)
    ours = mgpo.load(dialogue=dialogue)
    ours.max_new_tokens = 48
    source = Scenes(6, split="val", side=512)
    assert [r.replies for r in served.evaluate(source)] == [r.replies for r in ours.evaluate(source)]


def test_one_question_and_a_group(model, server):
    served, question = connect(server, model), Scenes(4, split="val")[3]
    picture = question.picture.load()
    answer = served.ask(picture, question.text, ["C", question.answer])
    assert answer.turns == model.ask(picture, question.text, ["C", question.answer]).turns
    assert answer.crops and answer._repr_png_()
    body = server.seen[-1][1]
    assert [message["role"] for message in body["messages"]] == ["system", "user", "assistant", "user"]
    assert body["messages"][2]["content"].endswith(CUT)
    assert "stop" not in body and body["logprobs"] is True


def test_predictions_through_a_server(model, server, tmp_path):
    source = Scenes(5, split="val", side=256)
    for i in range(5):
        source[i].picture.load().save(tmp_path / f"{i}.png")
    text, options = "Which letter stands on the red mark?", {"max_new_tokens": 32, **CAPS}
    predict(str(tmp_path), str(tmp_path / "a.jsonl"), text, server.url, options, model.dialogue)
    predict(str(tmp_path), str(tmp_path / "b.jsonl"), text, dialogue=model.dialogue)
    a, b = ([json.loads(line) for line in (tmp_path / n).read_text().splitlines()] for n in ("a.jsonl", "b.jsonl"))
    assert [(row["id"], row["replies"], row["boxes"]) for row in a] == [(r["id"], r["replies"], r["boxes"]) for r in b]
    with pytest.raises(UserError, match="another model"):
        predict(str(tmp_path), str(tmp_path / "b.jsonl"), text, server.url, options, model.dialogue)


def test_the_frame_is_an_argument():
    said = '```json\n[{"bbox_2d": [250, 500, 750, 1000]}'
    choices = [{"message": {"content": said}, "finish_reason": "stop", "stop_reason": CUT}]
    with Server(lambda *request: (200, {"choices": choices})) as server:
        thousand, pixels = (mgpo.load(server.url, model="any", frame=frame) for frame in ("thousand", Frame.PIXELS))
        picture = noise_image(1400, 1400)
        assert thousand.ask(picture, "Where?").boxes == [(350, 700, 1050, 1400)]
        (box,) = pixels.ask(picture, "Where?").boxes
        assert box == pytest.approx(
            [side * 1400 / thousand.resolution.full((1400, 1400))[0] for side in (250, 500, 750, 1000)]
        )


@pytest.mark.parametrize(
    ("choice", "stop_text", "text", "stop"),
    [
        ({"finish_reason": "stop", "stop_reason": CUT}, CUT, "```json\n[1]\n```", "marker"),
        ({"finish_reason": "stop", "stop_reason": None}, CUT, "```json\n[1", "end"),  # vLLM: the end of the turn
        ({"finish_reason": "stop"}, CUT, "```json\n[1]\n```", "marker"),  # nobody tells, and the block is open
        ({"finish_reason": "stop", "matched_stop": 7}, CUT, "```json\n[1", "end"),  # SGLang: a token ended it
        ({"finish_reason": "length"}, CUT, "```json\n[1", "length"),
        ({"finish_reason": "stop"}, None, "```json\n[1", "end"),
    ],
)  # fmt: skip
def test_the_stop_text_is_put_back(choice, stop_text, text, stop):
    said, reply = read_reply({"message": {"content": "```json\n[1"}, **choice}, stop_text)
    assert (said, reply.stop, reply.logprobs) == (text, stop, ())


def test_a_stop_text_that_came_along_is_not_doubled():
    whole = "```json\n[1]\n```"
    assert read_reply({"message": {"content": whole}, "finish_reason": "stop", "stop_reason": CUT}, CUT)[0] == whole
    plain = {"message": {"content": "\\boxed{K}"}, "finish_reason": "stop"}
    assert read_reply(plain, CUT)[1].stop == "end"
    assert read_reply({"message": {"content": None}, "finish_reason": "stop"}, None)[0] == ""


FATAL = [
    (401, {"error": {"message": "bad key"}}, r"refuses access \(401: bad key\)"),
    (404, {"error": {"message": "The model `x` does not exist."}}, "does not know that model"),
    (400, {"error": {"message": "tiny is not a multimodal model"}}, "takes no pictures"),
    (400, {"message": "This model does not support image input."}, "takes no pictures"),
    (422, {"detail": "Image inputs are not supported by tiny"}, "takes no pictures"),
    (302, b"", r"refuses the request \(302\) and points to http://127.0.0.1:9/stolen; ask there"),
    (308, b"<html>", r"refuses the request \(308\) and points to another address"),
    (405, b"<html>", r"is no such server \(405\)"),
    (410, {}, r"is no such server \(410\)"),
    (501, b"", r"is no such server \(501\)"),
    (402, {"detail": "top up"}, r"wants to be paid first \(402: top up\)"),
    (429, {"error": {"message": "You exceeded your current quota."}}, "wants to be paid first"),
    (401, b"[" * 10_000, r"refuses access \(401\)"),
]


@pytest.mark.parametrize(("status", "said", "words"), FATAL)
def test_refusals_are_one_sentence_and_not_tried_again(status, said, words):
    headers = [("Location", "http://127.0.0.1:9/stolen")] if status == 302 else []
    with Server(lambda *request: (status, said, *headers)) as server:
        served = mgpo.load(server.url, model="x", backoff=0)
        with pytest.raises(UserError, match=words) as error:
            ask(served)
        assert len(server.seen) == 1 and "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("status", "said", "words"),
    [
        (200, b"<html>", "no JSON, 3 times"),
        (200, [], "no JSON object, 3 times"),
        (500, {"detail": "out of\x1b[2J memory"}, "answers 500: out of .2J memory, 3 times"),
        (429, {"message": "slow down"}, "answers 429: slow down, 3 times"),
    ],
)
def test_what_may_pass_is_tried_again_and_costs_the_row(status, said, words):
    with Server(lambda *request: (status, said)) as server:
        with pytest.raises(UserError, match=words):
            ask(mgpo.load(server.url, model="x", retries=2, backoff=0))
        assert len(server.seen) == 3


@pytest.mark.parametrize("body", [{}, {"choices": []}, {"choices": [{"message": {"content": ["hm"]}}]}, {"choices": 3}])
def test_replies_of_another_form_cost_the_row(body):
    with Server(lambda *request: (200, body)) as server, pytest.raises(UserError, match="not of the protocol's form"):
        ask(mgpo.load(server.url, model="x"))


def test_a_passing_fault_changes_nothing(model):
    engine, faults = Engine(model.policy), iter([503, 429])

    def answers(path, body, headers):
        status = next(faults, None)
        return engine(path, body, headers) if status is None else (status, {}, ("Retry-After", "0"))

    with Server(answers) as server:
        served = mgpo.load(server.url, model.dialogue, model="tiny", max_new_tokens=32, backoff=60, **CAPS)
        question = Scenes(4, split="val", side=512)[1]
        assert served.group(question, 1, 0.0)[0].turns == model.group(question, 1, 0.0)[0].turns


def test_a_failed_question_costs_its_row_not_the_run(model, tmp_path):
    engine = Engine(model.policy)

    def answers(path, body, headers):
        poison = "poison" in json.dumps(body["messages"])
        return (500, {"error": {"message": "boom"}}) if poison else engine(path, body, headers)

    source = Scenes(3, split="val", side=256)
    asks = [{"image": f"{i}.png", "question": q} for i, q in enumerate([source[0].text, "poison", source[2].text])]
    for i in range(3):
        source[i].picture.load().save(tmp_path / f"{i}.png")
    (tmp_path / "asks.jsonl").write_text("\n".join(map(json.dumps, asks)))
    options = {"model": "tiny", "max_new_tokens": 32, "retries": 1, "backoff": 0.0, **CAPS}
    with Server(answers) as server:
        predict(str(tmp_path / "asks.jsonl"), str(tmp_path / "rows.jsonl"), None, server.url, options, model.dialogue)
        served, left_out = mgpo.load(server.url, model.dialogue, **options), r"question asks-2, the server answers 500"
        with pytest.warns(UserWarning, match=left_out):
            records = served.evaluate(unlabelled_questions(str(tmp_path / "asks.jsonl")))
    assert [record.id for record in records] == ["asks-1", "asks-3"]
    rows = [json.loads(line) for line in (tmp_path / "rows.jsonl").read_text().splitlines()]
    assert ["error" in row for row in rows] == [False, True, False]
    assert "boom, 2 times" in rows[1]["error"]


@pytest.mark.parametrize(
    "said",
    [
        "The decoder prompt (length 9000) is longer than the maximum model length of 8192. Make sure that "
        "`max_model_len` is no smaller than the number of text tokens plus multimodal tokens.",
        "unsupported image",
        "Failed to load image_url: the image format is not supported here",
    ],
)
def test_a_refused_question_costs_its_row_only(said):
    with Server(lambda *request: (400, {"error": {"message": said}})) as server, pytest.raises(NoReply, match=said[:9]):
        ChatClient(server.url).request("/chat/completions", {})


def test_time_outs_and_servers_that_are_not_there():
    def slow(*request):
        time.sleep(0.5)
        return 200, {}

    with Server(slow) as server:
        with pytest.raises(NoReply, match=r"no reply within 0\.1 s, 1 times"):
            ChatClient(server.url, timeout=0.1, retries=0).request("/chat/completions", {})
        gone = server.url
    with pytest.raises(ServerError, match="can't be reached"):
        ChatClient(gone, retries=1, backoff=0).request("/models")


def test_the_key_goes_from_its_variable_into_the_header_only(monkeypatch):
    monkeypatch.setenv("MY_KEY", "s3cret")
    with Server(lambda *request: (401, {"error": "no s3rvice"})) as server:
        served = mgpo.load(server.url, model="x", api_key_env="MY_KEY")
        with pytest.raises(UserError) as error:
            ask(served)
        assert server.seen[0][2]["Authorization"] == "Bearer s3cret"
        assert "s3cret" not in str(error.value) + json.dumps(served.identity())
        with pytest.raises(UserError):
            ask(mgpo.load(server.url, model="x"))
        assert "Authorization" not in server.seen[1][2]
    monkeypatch.setenv("MY_KEY", "")
    with pytest.raises(UserError, match="MY_KEY, which is to hold the key, is empty"):
        mgpo.load(server.url, model="x", api_key_env="MY_KEY")


def test_no_message_shows_the_key(monkeypatch):
    monkeypatch.setenv("MY_KEY", "s3cret\r\n")
    with Server(lambda path, body, headers: (401, {"error": f"who is {headers['Authorization']}?"})) as server:
        with pytest.raises(ServerError, match="who is Bearer …") as error:
            ChatClient(server.url, "MY_KEY").models()
        assert server.seen[0][2]["Authorization"] == "Bearer s3cret" and "s3cret" not in str(error.value)
        for key in ("s3cret\nX-Other: 1", "s3cret\x7f", "s3cret”"):
            monkeypatch.setenv("MY_KEY", key)
            with pytest.raises(UserError, match="MY_KEY holds what is no key") as error:
                ChatClient(server.url, "MY_KEY")
            assert "s3cret" not in str(error.value)
        assert len(server.seen) == 1


def test_options_are_checked():
    with Server(lambda *request: (200, {"data": [{"id": "a"}, {"id": "b"}]})) as server:
        with pytest.raises(UserError, match="serves a, b; name one"):
            mgpo.load(server.url)
        with pytest.raises(UserError, match="modle"):
            mgpo.load(server.url, modle="a")
        extra = mgpo.load(server.url, model="a", extra={"logprobs": None, "top_k": 1})
        with pytest.raises(UserError):
            ask(extra)
        assert "logprobs" not in server.seen[-1][1] and server.seen[-1][1]["top_k"] == 1
        with pytest.raises(UserError, match=r"frame is 'pixel'; .* one of pixels, thousand, unit"):
            mgpo.load(server.url, model="a", frame="pixel")
        low = mgpo.load(server.url, model="a", max_pixels=128 * 28 * 28).resolution.full  # below the floor
        assert low((100, 100)) == (12 * 28, 12 * 28)  # the cap, rounded up to whole patches
    with pytest.raises(UserError, match="begins with http"):
        ChatClient("file:///etc/passwd")


def ask(served):
    return served.ask(noise_image(64, 64), "Which?")
