"""The dashboard as a person sees it: in a terminal, in a narrow one, and in a file."""

import fcntl
import os
import pty
import re
import struct
import subprocess
import sys
import termios
from pathlib import Path

import lightning as L
import pytest

from mgpo.callbacks import Progress
from mgpo.monitoring import terminal as board
from mgpo.monitoring.terminal import Board
from tests.training.test_module import fit, make

ROOT = Path(__file__).parents[2]
RUN = """
import sys
import lightning as L
from mgpo.callbacks import Progress
from mgpo.commands.quiet import hush
from mgpo.data.module import VQAData
from mgpo.data.scenes import Scenes
from mgpo.world.tokenizer import train_tokenizer
from tests.training.test_module import Noisy, make

class Talking(Noisy):
    def training_step(self, batch, batch_idx):
        super().training_step(batch, batch_idx)
        print("bare words")
        self.print("long row", "x" * 100)
        if batch_idx == 2:
            L.pytorch.utilities.rank_zero.rank_zero_info("logged words")
            if "fail" in sys.argv:
                raise RuntimeError("it failed")

hush()
val = [Scenes(4, side=128, split="val")]
data = VQAData(train=Scenes(8, side=128), val=val, batch_size=2, eval_batch_size=1, num_workers=0)
trainer = L.Trainer(
    accelerator="cpu", max_epochs=1, logger=False, enable_model_summary=False, enable_checkpointing=False,
    use_distributed_sampler=False, callbacks=[Progress(2)], num_sanity_val_steps=0, val_check_interval=4,
)
trainer.fit(make(train_tokenizer(), Talking), data)
"""
ESCAPE = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
TIME = r"\d+:\d\d left"


def environment(**more):
    kept = {name: value for name, value in os.environ.items() if name not in ("COLUMNS", "LINES", "FORCE_COLOR")}
    return {**kept, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore", **more}


def in_terminal(tmp_path, columns, *arguments):
    """Everything that a terminal of that width is sent."""
    main, side = pty.openpty()
    fcntl.ioctl(side, termios.TIOCSWINSZ, struct.pack("HHHH", 40, columns, 0, 0))
    command = [sys.executable, "-c", RUN, *arguments]
    run = subprocess.Popen(command, cwd=tmp_path, env=environment(TERM="xterm"), stdin=side, stdout=side, stderr=side)
    os.close(side)
    sent = b""
    while True:
        try:
            part = os.read(main, 65536)
        except OSError:  # the other side is closed
            break
        if not part:
            break
        sent += part
    run.wait(timeout=60)
    os.close(main)
    return sent.decode()


@pytest.fixture(scope="module")
def narrow(tmp_path_factory):
    return in_terminal(tmp_path_factory.mktemp("run"), 60)


@pytest.fixture(scope="module")
def failed(tmp_path_factory):
    return in_terminal(tmp_path_factory.mktemp("run"), 120, "fail")


def drawn(sent):
    """What was written, row by row."""
    return re.split(r"[\r\n]+", ESCAPE.sub("", sent))


def test_a_terminal_gets_bars_and_whole_rows(narrow):
    rows = "\n".join(drawn(narrow))
    assert re.search(rf"step\s+4/4 ━+ 0:\d\d:\d\d {TIME}", rows)
    assert re.search(r"reward \d\.\d\d  valid_box \d\.\d\d  accuracy \d\.\d\d  \d+ tokens/s", rows)
    assert re.search(r"validation\s+4/4 ━+", rows)
    assert rows.count("long row " + "x" * 100) == 4
    assert re.search(r"^step 4: val accuracy \d\.\d\d, valid boxes \d\.\d\d *$", rows, re.MULTILINE)
    assert "sub-image alone" not in rows  # the table of an evaluation that is none of training's own


def test_bars_fit_and_nothing_is_glued_to_them(narrow, failed):
    """A bar that is too wide, or that something is printed behind, leaves torn lines at every refresh."""
    for sent, columns in ((narrow, 60), (failed, 120)):
        bars = [row for row in drawn(sent) if re.match(r"(step|validation|reward) ", row)]
        assert bars and max(len(row.rstrip()) for row in bars) <= columns
        for words in ("bare words", "logged words", "long row"):
            assert any(row.startswith(words) for row in drawn(sent))
            assert not any(row.find(words) > 0 for row in drawn(sent))


def test_a_failing_run_gives_the_terminal_back(failed):
    assert "RuntimeError: it failed" in drawn(failed)
    assert failed.rindex("\x1b[?25h") > failed.rindex("\x1b[?25l")  # the cursor


def test_a_pipe_gets_plain_lines(tmp_path):
    run = subprocess.run(
        [sys.executable, "-c", RUN], cwd=tmp_path, env=environment(COLUMNS="60", TERM="xterm"), capture_output=True,
        text=True, timeout=120,
    )  # fmt: skip
    assert run.returncode == 0, run.stderr[-2000:]
    lines = run.stdout.splitlines()
    numbers = r"  reward \d\.\d\d  valid_box \d\.\d\d  accuracy \d\.\d\d  \d+ tokens/s  "
    steps = [line for line in lines if re.match(r"step \d/", line)]
    assert [re.fullmatch(rf"step (\d)/4{numbers}{TIME}", line)[1] for line in steps] == ["2", "4"]
    evaluated = [line for line in lines if line.startswith("validation")]
    assert [re.fullmatch(rf"validation (\d)/4  {TIME}", line)[1] for line in evaluated] == ["2", "4"]
    assert lines.count("step 4: val accuracy 0.00, valid boxes 0.00") == 1
    assert not re.search(r"[\x00-\x09\x0b-\x1f]", run.stdout)


def test_time_left_is_by_the_pace_since_the_task_began(monkeypatch, capsys):
    now = [0.0]
    monkeypatch.setattr(board.time, "monotonic", lambda: now[0])
    shown = Board(every=10)
    shown.begin("step", 1000, done=500)  # resumed in the middle
    for done, seconds in ((510, 20.0), (520, 2000.0), (525, 2500.0)):
        now[0] = seconds
        if shown.due("step", done):
            shown.advance("step", done, "reward 0.50")
    assert capsys.readouterr().out.splitlines() == [
        "step 510/1000  reward 0.50  16:20 left", "step 520/1000  reward 0.50  13:20:00 left",
    ]  # fmt: skip


def test_without_an_end_no_time_is_promised(capsys):
    shown = Board(every=1)
    shown.begin("step", None)
    shown.advance("step", 3)
    assert capsys.readouterr().out == "step 3\n"


def test_steps_are_batches_or_updates_where_those_are_limited(tokenizer, tmp_path, capsys):
    module = make(tokenizer, mini_batches=2)
    bar = {"enable_progress_bar": True, "enable_checkpointing": False}
    fit(module, tmp_path, callbacks=[Progress(1)], **bar)
    batches = [line.split()[1] for line in capsys.readouterr().out.splitlines() if line.startswith("step")]
    assert batches == ["1/4", "2/4", "3/4", "4/4"]
    fit(make(tokenizer, mini_batches=2), tmp_path, callbacks=[Progress(1)], max_steps=6, **bar)
    updates = [line.split()[1] for line in capsys.readouterr().out.splitlines() if line.startswith("step")]
    assert updates == ["2/6", "4/6", "6/6"]
    fit(make(tokenizer, mini_batches=2), tmp_path, callbacks=[Progress(1)], max_steps=60, **bar)
    updates = [line.split()[1] for line in capsys.readouterr().out.splitlines() if line.startswith("step")]
    assert updates == ["2/8", "4/8", "6/8", "8/8"]  # all that the epoch holds


def test_a_run_that_goes_on_counts_to_its_limit(tokenizer, tmp_path, capsys):
    bar = {"enable_progress_bar": True, "enable_checkpointing": False}
    trainer = fit(make(tokenizer), tmp_path, callbacks=[Progress(1)], max_steps=2, **bar)
    trainer.save_checkpoint(tmp_path / "two.ckpt")
    capsys.readouterr()
    path = str(tmp_path / "two.ckpt")
    fit(make(tokenizer), tmp_path, callbacks=[Progress(1)], max_steps=3, ckpt_path=path, **bar)
    updates = [line.split()[1] for line in capsys.readouterr().out.splitlines() if line.startswith("step")]
    assert updates == ["3/3"]


class Stop(L.Callback):
    """Saves behind the second batch and ends there, as a kill does."""

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        if batch_idx == 1:
            trainer.save_checkpoint(Path(trainer.default_root_dir) / "amid.ckpt")
            raise KeyboardInterrupt


@pytest.mark.parametrize(("limit", "shown"), [(-1, ["3/4", "4/4"]), (3, ["3/3"])])
def test_so_does_one_that_goes_on_amid_an_epoch(tokenizer, tmp_path, capsys, limit, shown):
    bar = {"enable_progress_bar": True, "enable_checkpointing": False, "max_steps": limit}
    with pytest.raises(SystemExit):
        fit(make(tokenizer), tmp_path, callbacks=[Progress(1), Stop()], **bar)
    capsys.readouterr()
    fit(make(tokenizer), tmp_path, callbacks=[Progress(1)], ckpt_path=str(tmp_path / "amid.ckpt"), **bar)
    steps = [line.split()[1] for line in capsys.readouterr().out.splitlines() if line.startswith("step")]
    assert steps == shown
