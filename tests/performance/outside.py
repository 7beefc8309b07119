"""Where a second of a training step goes: `fit` on the default configuration, one thread, every phase timed.

The first steps are left out; evaluations before and after are off, and the gallery looks at none of these steps.
"""

import statistics
import tempfile
from typing import Any

import torch
from lightning.pytorch.loops.fetchers import _PrefetchDataFetcher
from lightning.pytorch.trainer import call

import mgpo
import mgpo.rollout.in_process
import mgpo.training.module
import mgpo.training.rollouts
from mgpo.dialogues import TwoTurn
from mgpo.policy.chat import Chat
from mgpo.policy.families.qwen2_5_vl import Qwen25VL
from mgpo.rollout.crops import CropCache
from mgpo.training.module import MGPO
from tests.performance.job import LEAST
from tests.performance.pairs import Options, Row, spread
from tests.performance.profile import Timers

QUESTIONS, WARM_UP = 160, 4
TARGET = 0.1


def decoder(timers: Timers, args: tuple[Any, ...]) -> str:
    if "rollout" not in timers.running:
        return "model: decoder, scoring"
    return "model: decoder, a token a row" if args[1].shape[1] == 1 else "model: decoder, prompts"


def head(timers: Timers, _: tuple[Any, ...]) -> str:
    return "model: head, sampling" if "rollout" in timers.running else "model: head, scoring"


PHASES = [
    (Qwen25VL, "decode", decoder),
    (Qwen25VL, "logits", head),
    (Qwen25VL, "features", "model: vision tower"),
    (MGPO, "manual_backward", "model: backward"),
    (torch.optim.AdamW, "step", "model: optimiser"),
    (mgpo.training.rollouts, "roll_out", "rollout"),
    (mgpo.rollout.in_process, "choose", "drawing tokens"),
    (CropCache, "__call__", "waiting for pixels"),
    (TwoTurn, "open", "dialogue"),
    (TwoTurn, "proceed", "dialogue"),
    (Chat, "open", "encoding"),
    (Chat, "follow", "encoding"),
    (Chat, "decode", "decoding"),
    (mgpo.training.rollouts, "judge", "rewards, metrics"),
    (mgpo.training.rollouts, "record_of", "rewards, metrics"),
    (mgpo.training.rollouts, "rollout_metrics", "rewards, metrics"),
    (mgpo.training.module, "collate", "collating"),
    (mgpo.training.module, "policy_loss", "loss"),
    (mgpo.training.module, "clip_gradients", "clipping"),
    (MGPO, "publish", "logging"),
    (_PrefetchDataFetcher, "__next__", "waiting for data"),
    (call, "_call_callback_hooks", "callbacks"),
]


def measure(options: Options) -> list[Row]:
    """The share of a step that is neither the model's passes, forward or backward, nor its optimiser."""
    torch.set_num_threads(1)
    side = LEAST * 28 * 28
    large = {f"model.policy.init_args.{cap}": side for cap in ("min_pixels", "max_pixels", "crop_max_pixels")}
    return [
        share("a default training step", QUESTIONS, {}),
        share(f"the same with pictures of {LEAST} tokens", QUESTIONS // 2, large),
    ]


def share(of: str, questions: int, settings: dict[str, Any]) -> Row:
    """Median over the steps of a `fit`, whose phases are printed."""
    timers = Timers()
    steps: list[dict[str, float]] = []
    step = MGPO.training_step

    def counted(self: MGPO, *args: Any) -> None:
        timers.charge()
        steps.append(dict(timers.seconds))
        timers.seconds.clear()
        step(self, *args)

    with tempfile.TemporaryDirectory() as folder, timers.wrapped(PHASES):
        usual = {"data.train.init_args.count": questions, "measure": "never", "preflight": "off"}
        MGPO.training_step = counted
        try:
            mgpo.fit("mgpo", usual | settings | {"trainer.logger.init_args.save_dir": folder})
        finally:
            MGPO.training_step = step
    steps = steps[1 + WARM_UP :]  # the first entry is what came before the first step
    print(breakdown(steps))
    shares = [
        1 - sum(s for name, s in seconds.items() if name.startswith("model")) / sum(seconds.values())
        for seconds in steps
    ]
    seconds = statistics.median(sum(seconds.values()) for seconds in steps)
    middle = statistics.median(shares)
    return Row(
        "outside the model", of, middle, *spread(shares), f"{middle * seconds:.3f} s", f"{seconds:.3f} s", TARGET,
        at_least=False,
    )  # fmt: skip


def breakdown(steps: list[dict[str, float]]) -> str:
    """Mean seconds and share of every phase, in Markdown, the largest first."""
    total = sum(sum(seconds.values()) for seconds in steps)
    sums = {name: sum(seconds.get(name, 0.0) for seconds in steps) for name in {n for s in steps for n in s}}
    lines = [f"| phase ({len(steps)} steps) | ms a step | share |", "|---|---|---|"]
    for name, spent in sorted(sums.items(), key=lambda item: -item[1]):
        lines.append(f"| {name} | {1000 * spent / len(steps):.1f} | {spent / total:.1%} |")
    return "\n".join(lines)
