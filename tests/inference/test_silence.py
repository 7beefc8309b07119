"""Replies without a text, and thoughts around one: what is said counts, and nothing else."""

import json

import pytest

import mgpo
from mgpo.data.scenes import Scenes
from mgpo.dialogues import SingleTurn
from mgpo.errors import UserError
from mgpo.inference.predict import predict
from mgpo.inference.served import read_reply
from tests.conftest import noise_image
from tests.helpers.serving import Server

BOX = '```json\n[{"bbox_2d": [100, 100, 500, 500]}'
OTHER = "[[28, 28, 280, 280]]"
CUT = "]\n```"


def replying(*messages, finish="stop"):
    """A server whose replies are these, the last again and again; messages are contents or whole messages."""
    left = list(messages)

    def answers(*request):
        message = left.pop(0) if len(left) > 1 else left[0]
        message = message if isinstance(message, dict) else {"content": message}
        return 200, {"choices": [{"message": {"role": "assistant", **message}, "finish_reason": finish}]}

    return Server(answers)


THOUGHT = [{"reasoning_content": "I see B."}, {"reasoning": "I see B."}, {"reasoning_details": [{"text": "I see B."}]}]
CALL = [{"type": "function", "function": {"name": "zoom", "arguments": "{}"}}]


@pytest.mark.parametrize(
    ("message", "finish", "words"),
    [
        *((thought, "stop", "all thought and no text; turn thinking off with extra") for thought in THOUGHT),
        *((thought, "length", "cut at 77 tokens, in the middle of .*; raise max_new_tokens") for thought in THOUGHT),
        ({"content": "<think>The answer is \\boxed{B}."}, "length", "in the middle of the model's thoughts"),
        ({"content": "<think>The answer is \\boxed{B}.</think>\n"}, "stop", "all thought and no text"),
        ({"content": [{"type": "thinking", "thinking": "B"}], "reasoning": "B"}, "stop", "all thought"),
        ({"tool_calls": CALL}, "tool_calls", "calls a tool and has no text"),
        ({"content": " \n", "tool_calls": CALL}, "tool_calls", "calls a tool and has no text"),
        ({"refusal": "I can't\x1b[2J help."}, "stop", "refuses to answer: I can't .2J help"),
        ({}, "content_filter", "filter withheld"),
        ({}, "length", "cut at 77 tokens, before any text; raise max_new_tokens"),
        ({"content": ""}, "stop", r"is empty \(finish_reason: stop\)"),
        ({}, None, r"is empty \(finish_reason: None\)"),
    ],
)  # fmt: skip
def test_a_reply_without_a_text_is_an_error_that_says_what_to_set(tmp_path, message, finish, words):
    noise_image(64, 64).save(tmp_path / "a.png")
    options = {"model": "x", "max_new_tokens": 77}
    with (
        replying({"content": None, **message}, finish=finish) as server,
        pytest.raises(UserError, match=words) as error,
    ):
        predict(str(tmp_path), str(tmp_path / "rows.jsonl"), "Which?", server.url, options)
    (row,) = map(json.loads, (tmp_path / "rows.jsonl").read_text().splitlines())
    assert row["error"] in str(error.value) and "answer" not in row and len(str(error.value)) <= 600


def test_a_stop_text_in_a_thought_is_no_reply():
    choice = {"message": {"content": None, "reasoning": BOX}, "finish_reason": "stop", "stop_reason": CUT}
    words = "stood in the model's thoughts; turn thinking off"
    with Server(lambda *request: (200, {"choices": [choice]})) as server, pytest.raises(UserError, match=words):
        mgpo.load(server.url, model="x").ask(noise_image(640, 640), "Which?")


@pytest.mark.parametrize(
    "thought",
    [
        "<think>" + OTHER + r" \boxed{A}</think>",
        OTHER + r" \boxed{A}</think>",
        r"<THINKING>```json" + OTHER + r" \boxed{A}</THINKING>",
    ],
)
def test_thoughts_are_no_replies_and_are_not_sent_back(thought):
    with replying(f"{thought}\n\n{BOX}", f"{thought}\n\n\\boxed{{B}}") as server:
        answer = mgpo.load(server.url, model="x").ask(noise_image(644, 644), "Which?", ["red", "blue"])
        assert server.seen[1][1]["messages"][2] == {"role": "assistant", "content": BOX + CUT}
    assert answer.answer == "B" and answer.boxes == [(100, 100, 500, 500)]


def test_a_field_of_thoughts_beside_a_text_changes_nothing():
    with replying({"content": "\\boxed{B}", "reasoning_content": "\\boxed{A}", "reasoning": "\\boxed{A}"}) as server:
        served = mgpo.load(server.url, SingleTurn(), model="x")
        assert served.ask(noise_image(64, 64), "Which?", ["red", "blue"]).answer == "B"


def test_a_content_in_parts_is_its_texts():
    parts = [{"type": "thinking", "thinking": [{"text": "\\boxed{A}"}]}, {"type": "text", "text": "\\boxed{B}"}]
    with replying({"content": parts}) as server:
        served = mgpo.load(server.url, SingleTurn(), model="x")
        assert served.ask(noise_image(64, 64), "Which?", ["red", "blue"]).answer == "B"


@pytest.mark.parametrize("logprob", ["-Infinity", "NaN", "1e999", "-9999999", "-1e308"])
def test_log_probs_that_are_none_are_not_known(logprob):
    choice = json.loads(
        f'{{"message": {{"content": "B"}}, "logprobs": {{"content": [{{"logprob": -1}}, {{"logprob": {logprob}}}]}}}}'
    )
    assert read_reply(choice, None)[1].logprobs == ()


@pytest.mark.parametrize(
    "choice",
    [
        '{"message": {"content": "B"}, "logprobs": {"content": [{"logprob": 1' + "0" * 400 + "}]}}",
        '{"message": {"content": "B"}, "logprobs": [1]}',
        '{"message": {"content": 3}}',
        '{"message": {"content": [3]}}',
        '{"message": {"content": [{"type": "text", "text": 3}]}}',
        '{"message": null}',
        '{"text": "B"}',
        "null",
    ],
)
def test_what_is_not_of_the_form_costs_the_row(choice):
    said = b'{"choices": [' + choice.encode() + b"]}"
    with Server(lambda *request: (200, said)) as server, pytest.raises(UserError, match="not of the protocol's form"):
        mgpo.load(server.url, model="x").ask(noise_image(64, 64), "Which?")


def test_a_limit_in_process_that_falls_into_a_thought_is_said(tmp_path, monkeypatch):
    """A template that always begins a thought, whose end the limit cuts off."""
    model = mgpo.load(max_new_tokens=3)
    monkeypatch.setattr(model.policy.chat, "closing", "</think>")
    monkeypatch.setattr("mgpo.inference.predict.load_with", lambda *args, **options: model)
    Scenes(1, split="val", side=256)[0].picture.load().save(tmp_path / "a.png")
    with pytest.raises(
        UserError, match=r"cut at 3 tokens, in the middle of the model's thoughts; raise max_new_tokens"
    ):
        predict(str(tmp_path), str(tmp_path / "rows.jsonl"), "Which letter stands on the red mark?")
    with pytest.raises(UserError, match="max_new_tokens is 0"):
        mgpo.load(max_new_tokens=0)
