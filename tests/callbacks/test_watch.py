"""Several ranks, of which one fails, is killed or sleeps: the last line names it, and so does whoever waits."""

import os
import signal
import subprocess
import sys
import threading
from types import SimpleNamespace

import pytest
import torch.distributed as dist

from mgpo.callbacks import watch as module
from mgpo.callbacks.watch import Failure, Watch, end_of_a_rank
from mgpo.errors import UserError
from tests.test_cli import ROOT

PEER = RuntimeError("[pair.cc:553] Connection closed by peer [127.0.0.1]:53430. This is typically caused by …")
REWARD = """
import os
from mgpo.rewards import ExactAnswer
from mgpo.types import Question

class Broken:
    def __call__(self, answer: str | None, question: Question) -> float:
        if os.environ.get("LOCAL_RANK") == "1":
            raise LookupError("no such\\nletter")
        return ExactAnswer()(answer, question)
"""


class PhaseTimer:
    """Stands for the module `time`."""

    def __init__(self):
        self.now = 1000.0

    def monotonic(self):
        return self.now

    def sleep(self, seconds):
        self.now += seconds


@pytest.fixture(autouse=True)
def clock(monkeypatch):
    monkeypatch.setattr(module, "time", PhaseTimer())
    return module.time


@pytest.fixture
def ranks():
    store = dist.HashStore()
    return [Watch(store, rank, 3) for rank in range(3)]


def test_every_rank_knows_which_failed_and_one_more_tells_it(ranks):
    assert ranks[1].end(LookupError("no such\nletter")) == Failure(
        "rank 1 failed: LookupError: no such letter", True, True
    )
    for rank, told in ((0, True), (2, False)):
        assert ranks[rank].end(PEER) == Failure("rank 1 failed: LookupError: no such letter", False, told)


def test_rank_0_stays_to_be_heard(ranks, clock):
    ranks[2].end(LookupError("?"))
    assert clock.now == 1000
    other = Watch(dist.HashStore(), 0, 2)
    other.end(LookupError("?"))
    assert clock.now == 1000 + module.LINGER


def test_a_sentence_stays_one(ranks):
    said = ranks[2].end(UserError("data.jsonl is empty; fill it"))
    assert said.text == "rank 2: data.jsonl is empty; fill it"
    assert ranks[0].end(UserError("data.jsonl is empty; fill it")).text == said.text


@pytest.mark.parametrize("error", [RuntimeError("can't restore the store"), ValueError("closed by peer")])
def test_an_error_of_one_s_own_is_no_loss_of_another(ranks, error):
    assert ranks[0].end(error).own


def test_a_rank_that_was_killed_is_named(ranks):
    processes = [SimpleNamespace(poll=lambda code=code: code) for code in (None, -signal.SIGKILL)]
    words = "rank 2 was ended by SIGKILL, as systems do where memory is short"
    assert ranks[0].end(PEER, processes) == Failure(words, False, True)
    assert "without a word, which rank 1 met as RuntimeError" in ranks[1].end(PEER).text


class Gone:
    """A store whose process has ended."""

    def check(self, keys):
        raise dist.DistNetworkError("Connection reset by peer")


def test_where_rank_0_has_gone_the_others_tell_what_they_know():
    rank = Watch(Gone(), 1, 2)
    assert rank.end(PEER) == Failure("rank 0 was ended without a word", False, True)
    rank.failure = "rank 0 failed: KeyError: 1"  # as it told in time
    assert rank.end(PEER) == Failure("rank 0 failed: KeyError: 1", False, False)


def test_a_process_ends_with_the_sentence_alone_where_others_failed(capsys):
    for failure, code in ((Failure("rank 1 failed", told=True), "mgpo: rank 1 failed"), (Failure("rank 1 failed"), 1)):
        PEER.failure = failure
        with pytest.raises(SystemExit) as end:
            end_of_a_rank(PEER)
        assert end.value.code == code and capsys.readouterr().err == ""
    end_of_a_rank(ValueError("of a single process"))


def test_a_failure_elsewhere_is_noticed(ranks):
    ranks[1].end(LookupError("?"))
    ranks[2].look()
    assert ranks[2].failure == "rank 1 failed: LookupError: ?"


@pytest.fixture
def at(ranks):
    """Puts a rank's main thread, for which another stands, into a function of a file."""
    ends, threads = threading.Event(), []

    def put(rank, function, file):
        scope = {"ends": ends}
        exec(compile(f"def {function}():\n    ends.wait()", file, "exec"), scope)
        threads.append(threading.Thread(target=scope[function]))
        threads[-1].start()
        ranks[rank].watched = threads[-1].ident
        while not threads[-1].is_alive() or "wait" not in _innermost(threads[-1]):
            pass

    yield put
    ends.set()
    for thread in threads:
        thread.join()


def _innermost(thread):
    frame = sys._current_frames().get(thread.ident)
    return frame.f_code.co_name if frame else ""


def say(ranks, clock, seconds, silent=()):
    """What rank 0 says, if anything, while the ranks are looked at for a time."""
    said = []
    for _ in range(seconds // 10):
        clock.now += 10
        for rank in ranks[::-1]:
            if rank.rank not in silent:
                rank.beat += 1
                rank.store.set(f"{module.AT}{rank.rank}", module.json.dumps([rank.beat, *rank.place()]))
        said.append(ranks[0].waiting())
    return [sentence for sentence in said if sentence]


def test_who_keeps_the_others_waiting_is_named_and_said_again_at_longer_intervals(ranks, clock, at):
    at(0, "all_gather", "/x/torch/distributed/c10d.py")
    at(1, "nap", "/home/me/reward.py")
    at(2, "backward", "/x/torch/autograd/graph.py")
    assert say(ranks, clock, 290) == []
    (said,) = say(ranks, clock, 100)
    assert said == ("rank 0, rank 2 has waited for 5 minutes for rank 1, which is in nap (reward.py, line 2)")
    assert say(ranks, clock, 200) == []
    assert len(say(ranks, clock, 100)) == 1


def test_a_rank_that_stands_still_as_a_whole_is_not_heard_of(ranks, clock, at):
    at(0, "all_gather", "/x/torch/distributed/c10d.py")
    at(1, "all_gather", "/x/torch/distributed/c10d.py")
    at(2, "all_gather", "/x/torch/distributed/c10d.py")
    say(ranks, clock, 10)
    (said,) = say(ranks, clock, 310, silent=(2,))
    assert said == "rank 0, rank 1 has waited for 5 minutes for rank 2, which is not heard of"


def test_ranks_that_all_wait_are_all_named(ranks, clock, at):
    for rank in range(3):
        at(rank, "all_gather", "/x/torch/distributed/c10d.py")
    (said,) = say(ranks, clock, 320)
    assert said.startswith("for 5 minutes all ranks have waited for each other: rank 0 in ")


def test_ranks_at_work_are_not_spoken_of(ranks, clock, at):
    for rank in range(3):
        at(rank, "generate", "/x/mgpo/rollout/in_process.py")
    assert say(ranks, clock, 900) == []


@pytest.mark.slow
def test_the_last_line_of_a_run_of_two_ranks_names_the_one_that_failed(tmp_path):
    (tmp_path / "broken.py").write_text(REWARD)
    options = ["--measure=never", "--preflight=off", "--data.train.init_args.count=8", "--data.batch_size=2"]
    options += ["--data.val=[]", "--data.num_workers=0", "--trainer.devices=2", "--trainer.strategy=ddp"]
    command = [sys.executable, "-m", "mgpo", "fit", f"--config={ROOT}/configs/mgpo.yaml", *options]
    done = subprocess.run(
        [*command, "--model.reward=broken.Broken"], cwd=tmp_path, capture_output=True, text=True, timeout=280,
        env={**os.environ, "PYTHONPATH": f"{ROOT}:{tmp_path}", "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode != 0
    last = done.stderr.splitlines()[-1]
    assert last.startswith("mgpo: rank 1: the reward Broken, asked about question attribute-")
    assert "fails: LookupError: no such letter" in last and "broken.py, line 9" in last
    assert "closed by peer" not in done.stderr and done.stderr.count("Traceback") == 0
