"""How much what a policy says depends on the pictures that it was shown."""

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from mgpo.policy.base import Policy, evaluating
from mgpo.policy.passes.batch import collate
from mgpo.policy.passes.logprobs import score
from mgpo.policy.passes.micro_batches import micro_batches
from mgpo.types import Pixels, Trajectory


@torch.no_grad()
def image_reliance(
    policy: Policy, trajectories: Sequence[Trajectory], temperature: float = 1.0, micro_batch_tokens: int = 16384
) -> float:
    """Nats per token by which the last replies are likelier with the true pictures than with blank ones.

    mean over tokens of log p(token | pictures) - log p(token | mean grey), both under the current weights, in
    evaluation mode. For tokens that the policy samples it estimates a divergence between the two: near 0, it
    would have said the same without looking. Weights, gradients and random numbers stay as they are.
    """
    parts = micro_batches(trajectories, micro_batch_tokens)
    with evaluating(policy):
        gains = torch.cat([_gains(policy, [trajectories[i] for i in rows], temperature) for rows in parts])
    return gains.mean().item()


def _gains(policy: Policy, trajectories: Sequence[Trajectory], temperature: float) -> Tensor:
    """(tokens of all last replies,)."""
    batch = collate(trajectories, policy.positions, policy.pad_id)
    seen_NC, unseen_NC = (
        score(policy, replace(batch, images=images).to(policy.device), temperature).logprobs_NC.cpu()
        for images in (batch.images, blank(batch.images))
    )
    last_N = torch.tensor([len(t.turns) - 1 for t in trajectories])
    return (seen_NC - unseen_NC)[batch.policy_NC & (batch.turn_NC == last_N[:, None])]


def blank(images: Sequence[Pixels]) -> list[Pixels]:
    """Images of the same sizes in mean grey, which is zero once normalised; what was one image stays one."""
    distinct = {image: Pixels(torch.zeros_like(image.patches), image.grid) for image in images}
    return [distinct[image] for image in images]
