"""Policies with random weights, and groups of episodes of given lengths with random ids."""

import math
from collections.abc import Sequence

import torch
from torch import nn

from mgpo.policy.qwen2_5_vl import Qwen25VL
from mgpo.types import Prompt, Reply, Trajectory, Turn
from mgpo.world.tokenizer import train_tokenizer
from tests.benchmarks.memory import Setting, build


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


def drop_gradients(policy: nn.Module) -> None:
    """As an optimiser does after its step."""
    for parameter in policy.parameters():
        parameter.grad = None
