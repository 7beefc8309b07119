"""Whole training steps: under Lightning on one policy, and a recipe's own `fit` as a command."""

import csv
import itertools
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import lightning as L
import torch

from mgpo.data.files import Files
from mgpo.data.module import VQAData
from mgpo.dialogues import Dialogue, SingleTurn, TwoTurn
from mgpo.objective import Objective
from mgpo.policy.base import Policy
from mgpo.rollout.episodes import Sampler
from mgpo.rollout.in_process import Sampling
from mgpo.training.module import MGPO
from mgpo.types import Question, Trajectory
from mgpo.utils.configurations import shipped_config

ROOT = Path(__file__).parent.parent.parent


class Alternating:
    """Right and wrong in turn, so that every rollout has an advantage and none is left out of the update."""

    def __init__(self) -> None:
        self.count = itertools.count()

    def __call__(self, answer: str | None, question: Question) -> float:
        return float(next(self.count) % 2)


class ToTheLimit(TwoTurn):
    """No stop text: all replies are equally long."""

    def stop_text(self, turn: int) -> str | None:
        return None


@dataclass
class Step:
    """One step: seconds in all and by phase, what was rolled out, and how many updates were not finite."""

    seconds: float
    phases: dict[str, float]
    rolled_out: list[Trajectory]
    skipped: float


class StepTimes(L.Callback):
    """A step lasts from the end of the one before to its own, with nothing left to do on the device."""

    def __init__(self) -> None:
        self.steps: list[Step] = []

    def on_train_start(self, trainer: L.Trainer, module: Any) -> None:
        module.timer.wait = synchronise
        self.began, self.before = time.perf_counter(), dict[str, float]()

    def on_train_batch_end(self, trainer: L.Trainer, module: Any, *_: Any) -> None:
        synchronise()
        now = time.perf_counter()
        read = {name: work.seconds for name, work in module.timer.read().items()}
        phases = {name: seconds - self.before.get(name, 0.0) for name, seconds in read.items()}
        skipped = module.published.get("skipped_updates", 0.0)
        self.steps.append(Step(now - self.began, phases, module.rolled_out, skipped))
        self.began, self.before = now, read


def synchronise() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def dialogue_of(turns: int) -> Dialogue:
    return SingleTurn() if turns == 1 else ToTheLimit()


def train(
    policy: Policy, questions: Path, turns: int, sizes: tuple[int, int, int], steps: int, device: str,
    sampler: Sampler | None, kl: float, micro_batch: int,
) -> list[Step]:  # fmt: skip
    """So many steps of `sizes`: questions, rollouts of each, tokens of a reply; in passes of so many tokens."""
    batch, group, new_tokens = sizes
    times = StepTimes()
    module = MGPO(
        policy.train(), dialogue_of(turns), Alternating(), group_size=group, sampling=Sampling(new_tokens),
        micro_batch_tokens=micro_batch, objective=Objective(kl_weight=kl), sampler=sampler,
        optimizer=partial(torch.optim.AdamW, lr=1e-5, weight_decay=0.0),
    )  # fmt: skip
    trainer = L.Trainer(
        accelerator="gpu" if device == "cuda" else "cpu", devices=1, max_steps=steps, max_epochs=-1, logger=False,
        enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False, callbacks=[times],
    )  # fmt: skip
    trainer.fit(module, VQAData(Files(str(questions)), batch_size=batch, num_workers=2))
    policy.to(device)
    return times.steps


@dataclass(frozen=True)
class Recipe:
    """A run of a recipe as a command: seconds until its first step began, GB at its peak and by `plan`."""

    first_step: float
    peak: float | None
    planned: float


def run_recipe(
    names: Sequence[str],
    model: Path,
    questions: Path,
    sizes: tuple[int, int, int],
    device: str,
    folder: Path,
    caps: int,
) -> Recipe:
    """`plan`, then `fit` for two steps in a process of its own, weights on disk, with pictures of at most `caps`."""
    batch, group, new_tokens = sizes
    source = f"{{class_path: mgpo.data.Files, init_args: {{path: {questions}}}}}"
    options = [
        *(part for name in names for part in ("--config", str(shipped_config(name)))),
        f"--model.policy.init_args.path={model}",
        f"--model.policy.init_args.max_pixels={caps}", f"--model.policy.init_args.min_pixels={caps // 5}",
        f"--model.sampling.max_new_tokens={new_tokens}", f"--model.group_size={group}",
        f"--data.batch_size={batch}", f"--data.train={source}", "--data.val=[]", "--data.num_workers=0",
        f"--trainer.accelerator={'gpu' if device == 'cuda' else 'cpu'}", "--trainer.max_steps=2",
    ]  # fmt: skip
    output = folder / "plan.json"
    with _command(folder, "plan", *options, f"--output={output}", f"--reply={new_tokens}") as planning:
        said, _ = planning.communicate()
    if planning.returncode:
        raise RuntimeError(said[-300:])
    planned = json.loads(output.read_text())["memory"]["assumed"]["peak"] / 1e9
    began = time.perf_counter()
    ends: dict[int, float] = {}  # of the steps that it speaks of, since it began
    lines: list[str] = []
    with _command(folder, "fit", *options, "--measure=never") as running:
        assert running.stdout is not None
        for line in running.stdout:
            lines.append(line)
            if step := re.match(r"step (\d+)/", line):
                ends[int(step[1])] = time.perf_counter() - began
    if running.returncode or not ends:
        raise RuntimeError("".join(lines)[-300:])
    (file,) = folder.glob("runs/mgpo/version_*/metrics.csv")
    with file.open() as text:
        rows = [row for row in csv.DictReader(text) if row.get("speed/seconds_per_step")]
    peak = max((float(row["memory/gpu_gb"]) for row in rows if row.get("memory/gpu_gb")), default=None)
    last, end = max(ends.items())
    return Recipe(end - sum(float(row["speed/seconds_per_step"]) for row in rows[:last]), peak, planned)


def _command(folder: Path, *arguments: str) -> subprocess.Popen:
    path = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    environment = {**os.environ, "PYTHONPATH": path, "COLUMNS": "200", "PYTHONUNBUFFERED": "1"}
    command = [sys.executable, "-m", "mgpo", *arguments]
    how = dict(stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    return subprocess.Popen(command, cwd=folder, env=environment, **how)
