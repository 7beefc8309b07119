"""A judge without a verdict: which replies are none, what its failures cost, and when they end a run."""

import time
import warnings

import pytest

from mgpo.errors import UserError
from mgpo.inference.client import ServerError
from mgpo.rewards import Verdict
from mgpo.rollout.episodes import judge
from tests.helpers.judging import RIGHT, WRONG, ask, connect, said, serving
from tests.helpers.servers import speaking
from tests.helpers.serving import Server

HOSTILE = [
    "The answer is CORRECT", "CORRECT INCORRECT", "correct, as the answer says", "", "yes", "true", '{"verdict": true}',
    "CORRECT" * 5000, "<think>CORRECT", "__import__('os').abort()", "ＣＯＲＲＥＣＴ",
]  # fmt: skip


@pytest.mark.parametrize("reply", HOSTILE, ids=range(len(HOSTILE)))
def test_anything_else_is_none_and_costs_the_reward(reply):
    with serving(reply) as server:
        reward = connect(server, unjudged=0.5)
        with pytest.warns(UserWarning, match="no verdict from the judge") as seen:
            assert reward(*ask()) == Verdict(0.5, right=False)
        assert reward.counts()["judge_failed"] == 1
    assert len(str(seen[0].message)) <= 600 and "\n" not in str(seen[0].message)


def dripping():
    while True:
        yield b" "
        time.sleep(0.02)


FAILURES = {
    "500": lambda shown: (500, {"error": "out of memory"}),
    "garbage": lambda shown: (200, b"\xff<html>"),
    "no object": lambda shown: (200, [1]),
    "nested": lambda shown: (200, b"[" * 100_000),
    "no choice": lambda shown: (200, {"choices": []}),
    "error": lambda shown: (200, {"error": {"message": "overloaded"}}),
    "no text": lambda shown: (200, {"choices": [{"message": {"content": 5}}]}),
    "slow": lambda shown: (200, dripping()),
}


@pytest.mark.parametrize("reply", FAILURES.values(), ids=FAILURES.keys())
def test_a_server_that_fails_costs_rewards_and_then_ends_the_run_with_a_sentence(reply):
    with serving(reply) as server:
        reward = connect(server, timeout=0.2, retries=0, patience=3, parallel=2, unjudged=-1.0)
        with pytest.warns(UserWarning, match="no verdict"):
            assert reward.judge_all([ask("one"), ask("two"), ask("tiger")]) == [Verdict(-1.0, False)] * 2 + [RIGHT]
        assert reward.counts() == {"judge_asked": 2, "judge_cached": 0, "judge_failed": 2}
        with pytest.raises(UserError, match=r"no verdict 3 times in a row.*--ckpt_path last") as ended:
            reward.judge_all([ask("three"), ask("four")])
    assert len(str(ended.value)) <= 600


def test_nobody_there_and_connections_that_break_are_failures_too():
    with Server(lambda *asked: said("CORRECT")) as server:
        gone = server.url
    with pytest.warns(UserWarning, match="can't be reached"):
        assert connect(gone, retries=0)(*ask()) == WRONG
    with (
        speaking([b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n{"]) as address,
        pytest.warns(UserWarning, match="no verdict"),
    ):
        assert connect(f"{address}/v1", retries=0)(*ask()) == WRONG


def test_a_verdict_in_between_starts_the_count_again():
    with serving(lambda shown: "CORRECT" if "cat" in shown else "perhaps") as server:
        reward = connect(server, patience=2, parallel=1)
        with warnings.catch_warnings(record=True) as warned:
            warnings.simplefilter("always")
            for i in range(4):
                reward.judge_all([ask(f"dog {i}"), ask(f"cat {i}")])
        assert len(warned) == 1  # of all four
        with pytest.raises(UserError, match="2 times in a row"):
            reward.judge_all([ask("dog 5"), ask("dog 6")])


@pytest.mark.parametrize(("status", "match"), [(401, "refuses access"), (404, "does not know that model")])
def test_what_every_answer_would_meet_ends_the_run_at_once(status, match):
    with serving(lambda shown: (status, {})) as server, pytest.raises(ServerError, match=match):
        connect(server)(*ask())


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"prompt": "{answer} CORRECT INCORRECT"}, r"\{truth\} is missing"),
        ({"prompt": "{answer} {truth} yes or no"}, "CORRECT is missing"),
        ({"parallel": 0}, "parallel"),
        ({"patience": 0}, "patience"),
        ({"unjudged": float("nan")}, "unjudged"),
        ({"timeout": 0}, "timeout"),
        ({"api_key_env": "NO_SUCH_KEY_HERE"}, "NO_SUCH_KEY_HERE"),
    ],
)
def test_what_makes_no_sense_is_refused_before_anything_is_asked(options, match):
    with pytest.raises(UserError, match=match):
        connect("http://127.0.0.1:1/v1", **options)


def test_a_reward_that_judges_too_few_is_told_so():
    class Short:
        def __call__(self, answer, question):
            return 1.0

        def judge_all(self, answers):
            return [1.0]

    with pytest.raises(UserError, match="Short judges 1 of 0 answers"):
        judge([], Short())
