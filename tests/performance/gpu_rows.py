"""The rows of `python -m tests.performance gpu`: what was measured on this device beside what was counted."""

import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile

from mgpo.data.files import Files
from mgpo.objective import Objective
from mgpo.policy.families.qwen2_5_vl import Qwen25VL
from mgpo.policy.passes.batch import collate
from mgpo.rollout.episodes import Sampler, roll_out
from mgpo.rollout.in_process import InProcessSampler, Sampling
from mgpo.training.loss import policy_loss
from mgpo.types import Pixels, Prompt, Trajectory
from mgpo.vllm.sampler import VLLMSampler, is_installed
from tests.gpu import checks
from tests.helpers.families import ALL, save_checkpoint
from tests.performance.gpu_limits import Counted
from tests.performance.gpu_step import dialogue_of, run_recipe, synchronise, train

KL = 0.01


@dataclass(frozen=True)
class Line:
    """One line of the table. `share`: of the counted limit, which is the least that the device could take."""

    what: str
    measured: str
    limit: str = ""
    share: float | None = None
    aim: str = ""


@dataclass(frozen=True)
class Work:
    """Questions of a step, rollouts of each, tokens of a reply, tokens of a picture."""

    questions: int = 8
    group: int = 8
    reply: int = 128
    picture: int = 1280
    photograph: tuple[int, int] = (3000, 2000)

    @property
    def sizes(self) -> tuple[int, int, int]:
        return self.questions, self.group, self.reply


TINY = Work(questions=2, group=2, reply=6, picture=12, photograph=(300, 200))


@dataclass
class Bench:
    """A model on a device, and what it is asked."""

    model: Path
    questions: Path
    policy: Qwen25VL
    counted: Counted
    work: Work
    device: str
    recipe: Sequence[str] = ("qwen2_5_vl_3b",)  # its configurations
    repeats: int = 3
    micro_batch: int = 28672  # tokens of a step's passes, as in the recipe for 3B

    @cached_property
    def samples(self) -> list[tuple]:
        source = Files(str(self.questions))
        return [(source[i], source[i].picture.load()) for i in range(self.work.questions)]

    def play(self, reply: int, turns: int = 2) -> list[Trajectory]:
        self.policy.eval()
        with torch.no_grad():
            return roll_out(
                self.policy, InProcessSampler(), dialogue_of(turns), self.samples, self.work.group, Sampling(reply),
                (0, 0),
            )  # fmt: skip

    @cached_property
    def rollouts(self) -> list[Trajectory]:
        return self.play(self.work.reply)

    @cached_property
    def prompts(self) -> list[Prompt]:
        return [t.turns[0].prompt for t in self.rollouts[:: self.work.group]]

    def seconds(self, program: Callable[[], object], warm_up: int = 1) -> float:
        """The median of some runs."""
        for _ in range(warm_up):
            program()
        return statistics.median(self.once(program) for _ in range(self.repeats))

    def once(self, program: Callable[[], object]) -> float:
        synchronise()
        began = time.perf_counter()
        program()
        synchronise()
        return time.perf_counter() - began


def of_limit(what: str, seconds: float, limit: float, aim: str = "") -> Line:
    """Seconds beside those that were counted."""
    return Line(what, _said(seconds), _said(limit), limit / seconds, aim)


def _said(seconds: float) -> str:
    return f"{seconds:.3g} s" if seconds >= 1 else f"{1000 * seconds:.3g} ms"


def families(bench: Bench) -> list[Line]:
    """Every family's tiny checkpoint: float32 against the CPU, and the sampler against the trainer."""
    lines = []
    for family in ALL:
        with tempfile.TemporaryDirectory() as folder:
            gaps = checks.family_gaps(family, save_checkpoint(family, Path(folder)), bench.device)
        measured = f"{gaps.trainer:.1e}, {gaps.sampler:.1e} nats; gradients {gaps.gradient:.1e} of their norm"
        lines.append(
            Line(f"{family.name}: log-probs against the CPU, sampler against trainer", measured, aim="1e-3, 1e-4")
        )
    return lines


def default(bench: Bench) -> list[Line]:
    """`fit` of the embedded default, preflight included: its first steps."""
    with tempfile.TemporaryDirectory() as folder:
        accelerator = "gpu" if bench.device == "cuda" else "cpu"
        count = 8 * (2 if bench.work is TINY else 12)
        rows = checks.fit_default(Path(folder), accelerator, f"--data.train.init_args.count={count}", "--data.val=[]")
    seconds = [row["speed/seconds_per_step"] for row in rows if "speed/seconds_per_step" in row]
    return [Line("default step (preflight passed)", _said(statistics.median(seconds[1:])))]


def tower(bench: Bench) -> list[Line]:
    """The first views of all questions in one call."""
    images: list[Pixels] = [prompt.images[0] for prompt in bench.prompts]
    tokens = sum(len(image.patches) for image in images) // bench.counted.shape.merge**2

    def see() -> None:
        with torch.no_grad():
            bench.policy.tower(images)

    what = f"vision tower, {len(images)} pictures, {tokens:,} tokens"
    return [of_limit(what, bench.seconds(see), bench.counted.tower(tokens), "≤ 150 ms, aim 100")]


def decode(bench: Bench) -> list[Line]:
    """One more token in all rows: a longer reply's seconds less a shorter one's, on prompts that are shown already."""
    short, long = (2, 4) if bench.work is TINY else (16, 48)
    rows, cached = bench.work.questions * bench.work.group, max(len(prompt.ids) for prompt in bench.prompts)

    def reply(length: int) -> float:
        conversation = InProcessSampler().open(bench.policy.eval(), bench.prompts, bench.work.group)
        return bench.once(lambda: list(conversation.reply(range(rows), Sampling(length))))

    reply(long)
    gaps = [(reply(long) - reply(short)) / (long - short) for _ in range(bench.repeats)]
    what = f"decode step, {rows} rows, {cached:,} cached"
    return [of_limit(what, statistics.median(gaps), bench.counted.decode(rows, cached), "≤ 8 ms (3B)")]


def update(bench: Bench) -> list[Line]:
    """Forward and backward pass over one group: tokens that are passed, each once, a second."""
    step, tokens = update_of(bench)
    seconds = bench.seconds(step, warm_up=2)
    share = bench.counted.update(tokens) / seconds
    what, least = f"update, a group, {tokens:,} tokens", tokens / bench.counted.update(tokens)
    return [Line(what, f"{tokens / seconds:,.0f} tokens/s", f"{least:,.0f}", share, "≥ 35 % (3B), 40 % (7B)")]


def update_of(bench: Bench) -> tuple[Callable[[], None], int]:
    """The pass, and how many tokens it passes."""
    policy, group, device = bench.policy, bench.rollouts[: bench.work.group], torch.device(bench.device)
    advantages_N = torch.tensor([1.0, -1.0], device=device).repeat(len(group))[: len(group)]
    weights_N = torch.full(
        (len(group),), 1 / sum(len(turn.reply.ids) for t in group for turn in t.turns), device=device
    )

    def step() -> None:
        policy.train()
        batch = collate(group, policy.positions, policy.pad_id).to(device)
        policy_loss(policy, batch, advantages_N, weights_N, Objective(), 1.0)[0].backward()
        policy.zero_grad()

    batch = collate(group, policy.positions, policy.pad_id)
    return step, int(batch.prefix_valid_BP.sum() + batch.fed_NC.sum())


def steps(bench: Bench) -> list[Line]:
    """Steps under Lightning, rolled out in process: two turns with a penalty, and one turn without."""
    return [_step(bench, 2, KL, "in process", "≤ 12 s (3B)"), _step(bench, 1, 0.0, "in process", "≥ 20 times TRL")]


def engine(bench: Bench) -> list[Line]:
    """The same step of two turns, rolled out by vLLM on the same device; then again, by the engine that there is."""
    if not is_installed():
        return [Line("step, 2 turns, vLLM", "not measured: vllm is not installed", aim="≤ 10 s (3B)")]
    sampler = VLLMSampler(max_model_len=16384, options={"gpu_memory_utilization": 0.45})
    try:
        return [_step(bench, 2, KL, how, "≤ 10 s (3B)", sampler) for how in ("vLLM", "vLLM, in a second run")]
    finally:
        sampler.close()


def _step(bench: Bench, turns: int, kl: float, how: str, aim: str, sampler: Sampler | None = None) -> Line:
    if bench.device == "cuda":
        torch.cuda.reset_peak_memory_stats()
    done = train(
        bench.policy, bench.questions, turns, bench.work.sizes, 3, bench.device, sampler, kl, bench.micro_batch
    )
    later = sorted(done[1:], key=lambda step: step.seconds)[0]
    phases = ", ".join(f"{name} {_said(seconds)}" for name, seconds in later.phases.items() if seconds)
    peak = f"; peak {torch.cuda.max_memory_allocated() / 1e9:.1f} GB" if bench.device == "cuda" else ""
    wrong = (
        f"; in {skipped} of {len(done)} the update was not finite"
        if (skipped := sum(step.skipped > 0 for step in done))
        else ""
    )
    limit = bench.counted.step_of(later.rolled_out, bench.work.group, bool(kl))
    measured = f"{_said(later.seconds)} ({phases}); first {_said(done[0].seconds)}{peak}{wrong}"
    what = f"step, {turns} turn{'s' * (turns > 1)}{', penalty' * bool(kl)}, {how}"
    return Line(what, measured, _said(limit), limit / later.seconds, aim)


def recipe(bench: Bench) -> list[Line]:
    """The recipe of that size as a command: how long until its first step, and its peak beside what `plan` says."""
    with tempfile.TemporaryDirectory() as folder:
        caps = bench.work.picture * 28 * 28
        found = run_recipe(
            bench.recipe, bench.model, bench.questions, bench.work.sizes, bench.device, Path(folder), caps
        )
    peak = "not measured: no GPU" if found.peak is None else f"{found.peak:.1f} GB"
    share = None if found.peak is None else found.planned / found.peak
    return [
        Line("from the command to the first step", _said(found.first_step), aim="≤ 60 s (3B)"),
        Line("peak of the recipe; limit: by `plan`", peak, f"{found.planned:.1f} GB", share, "within 10 %"),
    ]


def profiles(bench: Bench) -> str:
    """Where the time of an update and of some decode steps goes, by operator."""
    step, _ = update_of(bench)
    conversation: Any = InProcessSampler().open(bench.policy.eval(), bench.prompts, bench.work.group)
    rows = bench.work.questions * bench.work.group
    images: list[Pixels] = [prompt.images[0] for prompt in bench.prompts]
    programs: dict[str, Callable[[], object]] = {
        "tower": torch.no_grad()(lambda: bench.policy.tower(images)),
        "update": step, "8 decode steps": lambda: list(conversation.reply(range(rows), Sampling(8))),
    }  # fmt: skip
    return "\n".join(f"{name}\n{_profile(program, bench.device)}" for name, program in programs.items())


def _profile(program: Callable[[], object], device: str) -> str:
    gpu = device == "cuda"
    kinds: Sequence[ProfilerActivity] = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if gpu else [])]
    with profile(activities=kinds) as seen:
        program()
        synchronise()
    order = "self_device_time_total" if gpu else "self_cpu_time_total"
    return seen.key_averages().table(sort_by=order, row_limit=16, max_name_column_width=60)


ROWS: dict[str, Callable[[Bench], list[Line]]] = {
    "families": families, "default": default, "tower": tower, "decode": decode, "update": update, "steps": steps,
    "engine": engine, "recipe": recipe,
}  # fmt: skip
