"""Kills small runs at random moments, starts them again by the same command, and compares what they end with.

    python -m tests.reliability.kills --kills 50 --modes one batches ddp fsdp

Every run has three epochs and saves after every step. It is killed (SIGKILL) in a rollout, in an update, while it saves
or in between, in whichever epoch, as the dice say, again and again until it ends. Then its weights, its optimiser's
state, its metrics, rollouts, warnings, report and page are compared with those of a run that was left alone, bit for
bit.
"""

import argparse
import multiprocessing
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import lightning as L
import torch
import yaml

from mgpo import cli
from tests.helpers.remains import differences

ROOT = Path(__file__).parents[2]
PHASES = ("rollout", "update", "saving", "between")
EPOCHS = 3
REFILL = ["--model.constant_reward_groups=resample", "--model.resample_batches=3"]
COSINE = [
    "--model.lr_scheduler=torch.optim.lr_scheduler.CosineAnnealingWarmRestarts",
    "--model.lr_scheduler.init_args.T_0=5",
]
MODES = {
    "one": [],
    "workers": [
        "--data.num_workers=2",
        "--trainer.check_val_every_n_epoch=1",
        "--trainer.val_check_interval=3",
        *COSINE,
    ],
    "batches": ["--model.mini_batches=2", "--model.epochs=2", "--data.num_workers=0", *COSINE],
    "resample": [*REFILL, "--data.num_workers=2"],
    "steps": ["--trainer.max_epochs=-1", "--trainer.max_steps=15", "--trainer.check_val_every_n_epoch=1"],
    "ddp": ["--trainer.devices=2", "--trainer.strategy=ddp", *REFILL, *COSINE],
    "fsdp": [f"--config={ROOT}/configs/fsdp.yaml", "--trainer.devices=2", "--model.mini_batches=2"],
}
PLAIN = {"enable_version_counter": False}
SAVER = "lightning.pytorch.callbacks.ModelCheckpoint"
SMALL = {
    "model": {"group_size": 4},
    "data": {
        "train": {"class_path": "mgpo.data.Scenes", "init_args": {"count": 12, "side": 512}},
        "val": [{"class_path": "mgpo.data.Scenes", "init_args": {"count": 4, "side": 512, "split": "val"}}],
        "batch_size": 2,
    },
    "trainer": {
        "max_epochs": EPOCHS,
        "log_every_n_steps": 1,
        "callbacks": [
            {"class_path": "tests.reliability.kills.Phases"},
            {"class_path": "mgpo.callbacks.GroundingGallery",
             "init_args": {"every_n_steps": 3, "questions": 2, "rollouts": 2}},
            {"class_path": "mgpo.callbacks.RolloutLog", "init_args": {"every_n_steps": 3}},
            {"class_path": "mgpo.callbacks.EarlyWarning", "init_args": {"every_n_steps": 3, "rows": 4}},
            {"class_path": "mgpo.callbacks.Progress"},
            {"class_path": "mgpo.callbacks.ThroughputMonitor"},
            {"class_path": SAVER, "init_args": {"filename": "last", "every_n_train_steps": 1, **PLAIN}},
            {"class_path": SAVER, "init_args": {"filename": "trained", "save_on_train_epoch_end": True, **PLAIN}},
        ],
    },
}  # fmt: skip


class Phases(L.Callback):
    """Writes into a file what rank 0 is doing, and in which epoch, for whoever wants to kill it while it does."""

    def on_fit_start(self, trainer, pl_module):
        if trainer.is_global_zero:
            self.trainer = trainer
            self.file = os.open("phase", os.O_WRONLY | os.O_CREAT)
            self.say("between")
            pl_module.timer.phase = self.spoken(pl_module.timer.phase)
            self.save, trainer.strategy.save_checkpoint = trainer.strategy.save_checkpoint, self.saving

    def say(self, phase):
        os.pwrite(self.file, f"{phase} {self.trainer.current_epoch}".ljust(16).encode(), 0)

    def spoken(self, plain):
        @contextmanager
        def phase(name):
            self.say(name)
            with plain(name) as work:
                yield work
            self.say("between")

        return phase

    def saving(self, *args, **kwargs):
        self.say("saving")
        self.save(*args, **kwargs)
        self.say("between")


def fit(arguments, folder):
    """In a process of its own, forked from this one to save the seconds of its imports, else as by hand."""
    os.setsid()
    os.chdir(folder)
    log = os.open("log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(log, 1)
    os.dup2(log, 2)
    try:
        cli.main(arguments)
    except Exception:
        traceback.print_exc()
        os._exit(1)


class Run:
    """A run in a folder, under way."""

    def __init__(self, mode, folder):
        small = folder.parent / "small.yaml"
        small.write_text(yaml.safe_dump(SMALL))
        arguments = [
            "fit",
            f"--config={ROOT}/configs/mgpo.yaml",
            f"--config={small}",
            "--measure=never",
            "--preflight=off",
        ]
        arguments += [*MODES[mode], "--ckpt_path=last"]
        self.phase_file = folder / "phase"
        self.phase_file.unlink(missing_ok=True)
        self.ranks = mode in ("ddp", "fsdp")
        if self.ranks:  # the other repeats the command
            environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
            with (folder / "log").open("a") as log:
                command = [sys.executable, "-m", "mgpo", *arguments]
                options = dict(cwd=folder, env=environment, stdout=log, stderr=log, start_new_session=True)
                process = subprocess.Popen(command, **options)
            self.pid, self.code, self.wait = process.pid, process.poll, process.wait
        else:
            process = multiprocessing.get_context("fork").Process(target=fit, args=(arguments, folder))
            process.start()
            self.pid, self.code, self.wait = process.pid, lambda: process.exitcode, process.join

    def phase(self):
        """What it does, and in which epoch; None where that is not known."""
        try:
            phase, epoch = self.phase_file.read_text().split()
            return phase, int(epoch)
        except (FileNotFoundError, ValueError):
            return None

    def kill(self, dice):
        """When it was killed; None where it ended before. Of two ranks at times one: the other notices."""
        wanted, first, steps = dice.choice(PHASES), dice.randrange(EPOCHS), dice.randrange(4)
        while self.code() is None and steps >= 0:
            phase = self.phase()
            if phase is not None and phase[0] == wanted and phase[1] >= first:
                time.sleep(dice.random() * (0.02 if wanted == "saving" else 0.1))
                steps -= 1
            else:
                time.sleep(0.001)
        if self.code() is not None:
            return None
        phase = self.phase()
        if self.ranks and dice.random() < 0.25:
            children = Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text().split()
            os.kill(int(children[0]), signal.SIGKILL)  # ranks come before workers
            self.wait(60)
        with suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)
        self.wait()
        return phase


def endure(mode, folder, dice, most):
    """Kill a run at most so often, until it ends by itself; when it was killed."""
    folder.mkdir()
    killed = []
    while True:
        run = Run(mode, folder)
        phase = run.kill(dice) if len(killed) < most else None
        run.wait()
        if phase is not None:
            killed.append(phase)
        elif run.code() != 0:
            raise SystemExit(f"a run failed: {folder}/log\n" + (folder / "log").read_text()[-3000:])
        else:
            return killed


def trials(mode, kills, folder, dice) -> Iterator[tuple[list[str], list[str]]]:
    """(when it was killed, what differs in the end) of each run, until there were so many kills."""
    folder.mkdir()
    endure(mode, folder / "alone", dice, 0)
    number = 0
    while kills > 0:
        trial = folder / f"trial-{number}"
        killed = endure(mode, trial, dice, min(kills, dice.randint(1, 8)))
        with multiprocessing.get_context("fork").Pool(1) as pool:  # whose threads would not outlive the next fork
            found = pool.apply(differences, (trial, folder / "alone"))
        yield killed, found
        if not found:
            shutil.rmtree(trial)
        kills, number = kills - len(killed), number + 1


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=50, help="of each mode")
    parser.add_argument("--modes", nargs="+", choices=MODES, default=list(MODES))
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    torch.set_num_threads(1)
    folder = Path(tempfile.mkdtemp())
    failed = False
    epochs = [f"epoch {number}" for number in range(EPOCHS)]
    columns = "".join(f"{name:>9}" for name in [*PHASES, *epochs])
    print(f"{'mode':9}{'runs':>6}{'kills':>7}{columns}  differences", flush=True)
    for mode in options.modes:
        times, runs, found = Counter(), 0, []
        for killed, differing in trials(mode, options.kills, folder / mode, random.Random(options.seed)):
            times.update(name for phase, epoch in killed for name in (phase, f"epoch {epoch}"))
            runs += 1
            found += differing
        counts = "".join(f"{times[name]:>9}" for name in [*PHASES, *epochs])
        print(f"{mode:9}{runs:>6}{times.total() // 2:>7}{counts}  {', '.join(found) or 0}", flush=True)
        failed |= bool(found)
    if failed:
        raise SystemExit(f"see {folder}")
    shutil.rmtree(folder)


if __name__ == "__main__":
    main()
