"""Processes that make batches ahead: they outlive signals, end with their epoch, and pass on mistakes as they are."""

import multiprocessing
import os
import signal
import subprocess
import sys

import pytest

from mgpo.callbacks.fixed_questions import choose
from mgpo.data import Scenes, VQAData
from mgpo.data.base import DataError
from mgpo.errors import UserError
from mgpo.tools.audit.command import questions
from mgpo.types import Question
from tests.test_cli import ROOT


class Rows(Scenes):
    """From the third question on nothing can be used."""

    def __getitem__(self, index: int) -> Question:
        if index == 2:
            return {"question": "What?"}
        return super().__getitem__(index) if index < 2 else 1 / 0


def batches(source, batch_size=1, workers=2):
    return iter(VQAData(val=[source], eval_batch_size=batch_size, num_workers=workers).val_dataloader()[0])


@pytest.mark.parametrize("workers", [0, 2])
def test_a_mistake_comes_as_it_was_made(workers):
    handed_out = batches(Rows(4, split="val", side=64), workers=workers)
    assert [next(handed_out)[0].question.id for _ in range(2)] == ["attribute-2-0-0", "attribute-2-0-1"]
    with pytest.raises(DataError) as raised:
        next(handed_out)
    assert str(raised.value) == "the source Rows gives a dict as question 2, not a Question"


@pytest.mark.parametrize("batch_size", [3, 4])
def test_of_a_batch_the_first_mistake_is_told(batch_size):
    with pytest.raises(UserError, match=r"^the source Rows gives a dict as question 2"):
        next(batches(Rows(4, split="val", side=64), batch_size))


@pytest.mark.parametrize("ask", [lambda rows: choose([rows], 4), lambda rows: questions("embedded", None, rows, None)])
def test_whoever_asks_a_source_names_it_where_it_fails(ask):
    with pytest.raises(UserError, match="the source Rows gives a dict as question 2"):
        ask(Rows(4, split="val", side=64))


def test_no_worker_is_left_behind():
    """Neither by a mistake whose traceback is kept nor by a loop that was left: they would hold up the end for ever."""
    failing, left = batches(Rows(4, split="val", side=64), 4), batches(Scenes(4, split="val", side=64))
    with pytest.raises(UserError) as raised:
        next(failing)
    assert raised.tb and not multiprocessing.active_children()
    next(left)
    assert len(multiprocessing.active_children()) == 2
    left.close()
    assert not multiprocessing.active_children()


def test_a_signal_to_all_processes_of_a_run_leaves_workers_at_work():
    handed_out = batches(Scenes(6, split="val", side=64), workers=1)
    next(handed_out)
    (worker,) = multiprocessing.active_children()
    for number in (signal.SIGTERM, signal.SIGINT):
        os.kill(worker.pid, number)
    assert len(list(handed_out)) == 5


def test_a_program_ends_in_the_middle_of_its_batches():
    code = "from tests.data.test_workers import *; b = batches(Scenes(6, split='val', side=64)); next(b); print('done')"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=100)
    assert (done.stdout, done.stderr, done.returncode) == ("done\n", "", 0)
