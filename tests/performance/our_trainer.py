"""MGPO under Lightning on a job, step by step: `python -m tests.performance.our_trainer TURNS TOKENS PICTURE`."""

import itertools
import json
import sys
from functools import partial
from typing import Any

import lightning as L
import torch

from mgpo.commands.quiet import hush
from mgpo.data.module import VQAData
from mgpo.rollout.in_process import Sampling
from mgpo.training.module import MGPO
from mgpo.types import Question
from mgpo.utils.allocator import keep_freed_memory
from tests.performance.job import GROUP, QUESTIONS, RATE, dialogue_of, draw_questions, lengths, load_policy
from tests.performance.protocol import Turns


class Alternating:
    """Right and wrong in turn, so that every rollout has an advantage and none is left out of the update."""

    def __init__(self) -> None:
        self.count = itertools.count()

    def __call__(self, answer: str | None, question: Question) -> float:
        return float(next(self.count) % 2)


class StepByStep(L.Callback):
    """A step lasts from one line to the next: data, rollouts, update and whatever the trainer does around them."""

    def __init__(self) -> None:
        self.turns = Turns()

    def on_train_start(self, *_: Any) -> None:
        self.turns.done()

    def on_train_batch_end(self, trainer: L.Trainer, module: MGPO, *_: Any) -> None:
        self.turns.done(json.dumps({"episode": lengths(module.rolled_out)}))


def main(turns: int, new_tokens: int, picture: int) -> None:
    torch.set_num_threads(1)
    hush()
    keep_freed_memory()  # as `fit` does
    stepping = StepByStep()
    policy = load_policy(picture).train()
    module = MGPO(
        policy, dialogue_of(turns), Alternating(), group_size=GROUP, sampling=Sampling(new_tokens),
        optimizer=partial(torch.optim.AdamW, lr=RATE, weight_decay=0.0),
    )  # fmt: skip
    data = VQAData(draw_questions(policy.resolution, turns), batch_size=QUESTIONS, num_workers=0)
    trainer = L.Trainer(
        accelerator="cpu", devices=1, max_epochs=-1, logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False, callbacks=[stepping],
    )  # fmt: skip
    trainer.fit(module, data)


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
