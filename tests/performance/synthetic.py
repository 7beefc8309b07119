"""Policies with random weights, and groups of episodes of given lengths with random ids."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mgpo.policy.families.qwen2_5_vl import Qwen25VL
from mgpo.policy.passes.batch import Batch
from mgpo.types import Prompt, Reply, Trajectory, Turn
from mgpo.world.tokenizer import train_tokenizer
from tests.performance.memory import Setting, build


def random_policy(width: int, layers: int, vocabulary: int, mlp: int) -> Qwen25VL:
    """In training mode; every id may be sampled, as in the stock model."""
    setting = Setting(
        width=width, layers=layers, heads=width // 64, kv_heads=width // 128, mlp=mlp, vocabulary=vocabulary,
        vision_width=32, vision_layers=1, vision_mlp=32,
    )  # fmt: skip
    policy = build(setting, train_tokenizer())
    policy.banned[:] = False
    return policy.train()


def group(size: int, prompt: int, pieces: Sequence[int], vocabulary: int) -> list[Trajectory]:
    """Rollouts of one question: a prompt they share, then in turn what was sampled and what was shown."""
    torch.manual_seed(0)

    def draw(length: int) -> tuple[int, ...]:
        return tuple(torch.randint(100, vocabulary, (length,)).tolist())  # ids below are special

    first = Prompt(draw(prompt))
    likely = -math.log(vocabulary)
    trajectories = []
    for _ in range(size):
        shown = [first, *(Prompt(draw(length)) for length in pieces[1::2])]
        replies = [Reply(draw(length), (likely,) * length, "length") for length in pieces[::2]]
        turns = [Turn(prompt, reply, "") for prompt, reply in zip(shown, replies, strict=True)]
        trajectories.append(Trajectory(None, None, turns))  # type: ignore[arg-type]
    return trajectories


def plain_logprobs(policy: Qwen25VL, batch: Batch) -> Tensor:
    """(N, C) log-probs of the policy tokens: whole rows of one length through the stock decoder, full logits of those.

    A continuation begins with the prompt's last token.
    """
    ids_NT = torch.cat([batch.prefix_ids_BP[batch.owner_N], batch.ids_NC], 1)
    hidden_NTD = policy.model.model.language_model(input_ids=ids_NT, use_cache=False).last_hidden_state
    hidden_NCD = hidden_NTD[:, batch.prefix_ids_BP.shape[1] :]
    chosen_NC = batch.policy_NC[:, 1:]
    logprobs_MV = F.log_softmax(policy.model.lm_head(hidden_NCD[:, :-1][chosen_NC]), -1)
    logprobs_M = logprobs_MV.gather(-1, batch.ids_NC[:, 1:][chosen_NC][:, None]).squeeze(-1)
    return torch.zeros(batch.ids_NC.shape).index_put(batch.policy_NC.nonzero(as_tuple=True), logprobs_M)


def drop_gradients(policy: nn.Module) -> None:
    """As an optimiser does after its step."""
    for parameter in policy.parameters():
        parameter.grad = None
