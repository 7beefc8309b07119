"""Stages 2 and 3 of pretraining: the language model on transcripts, over the frozen vision tower."""

from collections import defaultdict

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from mgpo.policy.batch import Batch
from mgpo.policy.logprobs import score
from mgpo.policy.qwen2_5_vl import Qwen25VL
from mgpo.world.tokenizer import is_atom
from mgpo.world.transcripts import Habits, Transcripts, reply_weights


def train_language(
    policy: Qwen25VL, steps: int, scenes: int, side: int, answered: float, habits: Habits, lr: float, seed: int, log=print  # noqa: ANN001
) -> None:  # fmt: skip
    """Train everything but the vision tower, in place; logs the loss of boxes and of answers, in nats a token."""
    policy.model.model.visual.requires_grad_(False)
    parameters = [p for p in policy.parameters() if p.requires_grad]
    optimiser = torch.optim.AdamW(parameters, lr=lr, weight_decay=0.01, betas=(0.9, 0.98))
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, lr, total_steps=steps, pct_start=0.03)
    atoms = torch.tensor([is_atom(policy.tokenizer.decode([i])) for i in range(len(policy.tokenizer))])
    data = Transcripts(policy, steps, scenes, side, answered, habits, seed)
    sums: dict[str, list[float]] = defaultdict(lambda: [0.0, 0.0])
    for step, batch in enumerate(DataLoader(data, batch_size=None, num_workers=1, prefetch_factor=4)):
        logprobs = score(policy, batch).logprobs_NC
        weights = reply_weights(batch, atoms)
        loss = -(weights * logprobs).sum() / weights.sum()
        optimiser.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimiser.step()
        schedule.step()
        _count(sums, batch, logprobs.detach(), atoms)
        if (step + 1) % 50 == 0:
            shown = "  ".join(f"{name} {total / max(count, 1):.3f}" for name, (total, count) in sorted(sums.items()))
            log(f"language {step + 1}/{steps}  {shown}")
            sums.clear()
    policy.model.model.visual.requires_grad_(True)


def _count(sums: dict[str, list[float]], batch: Batch, logprobs: Tensor, atoms: Tensor) -> None:
    """Add up the loss of the first number of each box, and of the answers after a first turn."""
    chosen = batch.policy_NC & atoms[batch.ids_NC]
    for name, turn in (("box", 1), ("answer", 2)):
        there = chosen & (batch.turn_NC == turn)
        first = there & (there.cumsum(1) == 1)
        sums[name][0] -= float(logprobs[first].sum())
        sums[name][1] += float(first.sum())
