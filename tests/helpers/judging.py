"""A judge behind a small server, and answers to judge."""

from mgpo.inference import JudgeReward
from mgpo.rewards import Verdict
from mgpo.types import Question
from tests.helpers.serving import Server

WRONG, RIGHT = Verdict(0.0, right=False), Verdict(1.0, right=True)


def ask(answer="a big cat", truth="tiger", **fields):
    return answer, Question("1", None, fields.pop("text", "Which animal?"), truth, **fields)  # type: ignore[arg-type]


def said(text, **message):
    return 200, {"choices": [{"message": {"content": text, **message}, "finish_reason": "stop"}]}


def serving(reply="CORRECT"):
    """A judge that always says the same, or what a function of what it is shown gives."""

    def answers(path, body, headers):
        (message,) = body["messages"]
        made = reply(message["content"]) if callable(reply) else reply
        return said(made) if isinstance(made, str) else made

    return Server(answers)


def connect(server, **options):
    return JudgeReward(server if isinstance(server, str) else server.url, "judge", **{"backoff": 0.0, **options})
