"""The engine's own process, and the pair of sockets that lead there, without an engine."""

import os
import signal
import socket
import subprocess
import sys
import threading

import pytest
import torch

from mgpo.rollout.in_process import Sampling
from mgpo.vllm.remote import ServedEngine
from mgpo.vllm.requests import Request
from mgpo.vllm.wire import receive, send


def test_frames_arrive_as_they_were_sent():
    a, b = socket.socketpair()
    shared = torch.randn(300, 1000)
    tensors = {"whole": shared, "tied": shared, "half": shared[:, ::2].bfloat16(), "none": torch.zeros(0, 3)}
    thread = threading.Thread(target=send, args=(a, {"do": "it", "ids": [1, 2]}, tensors))
    thread.start()
    head, got = receive(b)
    thread.join()
    assert head == {"do": "it", "ids": [1, 2]}
    assert got.keys() == tensors.keys() and all(torch.equal(got[name], tensors[name]) for name in tensors)
    a.close()
    with pytest.raises(EOFError, match="has ended"):
        receive(b)
    b.close()


def test_an_engines_process_goes_on_until_its_trainer_is_gone():
    """Ctrl-C and what SLURM sends reach all processes; a step is ended first."""
    ours, theirs = socket.socketpair()
    with theirs:
        command = [sys.executable, "-m", "mgpo.vllm.server", str(theirs.fileno())]
        process = subprocess.Popen(command, pass_fds=[theirs.fileno()], start_new_session=True)
    try:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, 0):
            send(ours, {"do": "sleep"})
            assert receive(ours)[0] == {}
            process.send_signal(number)
        ours.close()
        assert process.wait(60) == 0
    finally:
        process.kill()


def test_its_process_is_ended_where_others_hold_the_pipe_too():
    """As data workers do that were forked behind its start."""
    ours, theirs = socket.socketpair()
    engine = ServedEngine.__new__(ServedEngine)
    with theirs, ours.dup():
        command = [sys.executable, "-m", "mgpo.vllm.server", str(theirs.fileno())]
        engine.pipe, engine.process = ours, subprocess.Popen(command, pass_fds=[theirs.fileno()])
        theirs.close()
        engine._ask({"do": "sleep"})
        engine.close()
    assert engine.process.returncode == 0  # and was not killed
    engine.close()  # once more


SLOW = """
import socket, sys, time
from mgpo.vllm.wire import receive, send
pipe = socket.socket(fileno=int(sys.argv[1]))
for asked in range(9):
    receive(pipe)
    time.sleep(60 * asked)
    send(pipe, {"drawn": [[0, [1], [0.0], 0]]})
"""


@pytest.fixture
def slow():
    """A process that answers everything alike: the first question at once, any other after minutes."""
    ours, theirs = socket.socketpair()
    engine = ServedEngine.__new__(ServedEngine)
    with theirs:
        command = [sys.executable, "-c", SLOW, str(theirs.fileno())]
        engine.pipe, engine.process = ours, subprocess.Popen(command, pass_fds=[theirs.fileno()])
    yield engine
    engine.process.kill()
    engine.close()


def ask(engine):
    return list(engine.sample([Request((1,), (), 0)], Sampling(4), None))


def test_the_answer_to_a_question_that_was_broken_off_is_not_the_next_ones(slow):
    """As by a notebook's stop button."""
    assert len(ask(slow)) == 1 and not slow.broken
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job ignores it
    try:
        threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGINT)).start()
        with pytest.raises(KeyboardInterrupt):
            ask(slow)
    finally:
        signal.signal(signal.SIGINT, before)
    assert slow.broken and slow.process.returncode is not None


def test_weights_that_fail_halfway_end_the_engine(slow):
    def weights():
        yield "a", torch.zeros(1)
        raise RuntimeError("no room to add them up")

    with pytest.raises(RuntimeError, match="no room"):
        slow.load(weights())
    assert slow.broken and slow.process.returncode is not None


def test_weights_for_a_process_that_is_gone_are_told_so(slow):
    slow.process.kill()
    slow.process.wait()
    with pytest.raises(RuntimeError, match="the engine's process has ended"):
        slow.load(iter([("a", torch.zeros(1 << 20))]))
    assert slow.broken
