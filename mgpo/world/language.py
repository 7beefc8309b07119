"""Stages 2 and 3 of pretraining: the language model on transcripts, over the frozen vision tower."""

from collections import defaultdict
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader

from mgpo.policy.families.qwen2_5_vl import Qwen25VL
from mgpo.policy.passes.batch import Batch
from mgpo.policy.passes.logprobs import score
from mgpo.world.tokenizer import is_atom
from mgpo.world.tower import BINS
from mgpo.world.transcripts import Transcripts, reply_weights


def train_language(
    policy: Qwen25VL,
    data: Transcripts,
    lr: float,
    log: Callable[[str], None],
    tower: bool = False,
    probing: float = 0.5,
) -> None:
    """Train all but the vision tower, or with it, in place; logs the loss of boxes and of answers, in nats a token.

    `probing` is the weight of the probes' loss.
    """
    policy.model.model.visual.requires_grad_(tower)
    probes = Probes(policy, len(data.contents))
    parameters = [p for p in [*policy.parameters(), *probes.parameters()] if p.requires_grad]
    optimiser = torch.optim.AdamW(parameters, lr=lr, weight_decay=0.01, betas=(0.9, 0.98))
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, lr, total_steps=data.steps, pct_start=0.03)
    atoms = torch.tensor([is_atom(text) for text in policy.token_texts])
    sums: dict[str, list[float]] = defaultdict(lambda: [0.0, 0.0])
    for step, (batch, labels) in enumerate(DataLoader(data, batch_size=None, num_workers=1, prefetch_factor=4)):
        logprobs = score(policy, batch).logprobs_NC
        weights = reply_weights(batch, atoms)
        probed = probes.loss(batch, labels)
        loss = -(weights * logprobs).sum() / weights.sum() + probing * torch.stack(probed).mean()
        optimiser.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimiser.step()
        schedule.step()
        _count(sums, batch, logprobs.detach(), atoms)
        if (step + 1) % 50 == 0:
            shown = "  ".join(f"{name} {total / max(count, 1):.3f}" for name, (total, count) in sorted(sums.items()))
            probe_losses = " ".join(f"{p.item():.2f}" for p in probed)
            log(f"language {step + 1}/{data.steps}  {shown}  probes {probe_losses}")
            sums.clear()
    policy.model.model.visual.requires_grad_(True)
    probes.remove()


class Probes(nn.Module):
    """Linear heads on the first two layers, at tokens of the questions; thrown away afterwards.

    A box takes two steps of attention, from the reply to the colour asked for and from the colour to
    the picture; a choice takes three. Learnt through the language loss alone, the steps wait for each
    other. On layer 1 the colour tells where its mark is and what it bears, on layer 2 an option tells
    whether it is the right one.
    """

    def __init__(self, policy: Qwen25VL, contents: int) -> None:
        super().__init__()
        width = policy.model.config.text_config.hidden_size
        self.heads = nn.ModuleList([nn.Linear(width, n) for n in (BINS, BINS, contents, 2)])
        self.layers = (0, 0, 0, 1)
        self.norm = nn.RMSNorm(width)
        self.hidden: dict[int, Tensor] = {}
        layers = policy.model.model.language_model.layers
        self.hooks = [layers[i].register_forward_hook(partial(self._keep, i)) for i in (0, 1)]

    def _keep(self, layer: int, module: nn.Module, inputs: tuple, hidden_1TD: Tensor) -> None:
        self.hidden[layer] = hidden_1TD[0]

    def loss(self, batch: Batch, labels_NC4: Tensor) -> list[Tensor]:
        """Mean cross-entropy of each head over the last pass, in which the prompts stand before the continuations."""
        labels_M4 = labels_NC4[batch.fed_NC]
        losses = []
        for i, (layer, head) in enumerate(zip(self.layers, self.heads)):
            known_M = labels_M4[:, i] >= 0
            hidden_MD = self.hidden[layer][-len(labels_M4) :]
            losses.append(F.cross_entropy(head(self.norm(hidden_MD[known_M])), labels_M4[known_M, i]))
        return losses

    def remove(self) -> None:
        """Take the hooks off the model's layers, which then is as it was before."""
        for hook in self.hooks:
            hook.remove()


def _count(sums: dict[str, list[float]], batch: Batch, logprobs: Tensor, atoms: Tensor) -> None:
    """Add up the loss of the first number of each box, and of the answers after a first turn."""
    chosen = batch.policy_NC & atoms[batch.ids_NC]
    for name, turn in (("box", 1), ("answer", 2)):
        there = chosen & (batch.turn_NC == turn)
        first = there & (there.cumsum(1) == 1)
        sums[name][0] -= float(logprobs[first].sum())
        sums[name][1] += float(first.sum())
