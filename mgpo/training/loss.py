"""The loss of a batch of trajectories under a policy, and the old log-probs that it starts from, with their metrics."""

from collections.abc import Sequence
from contextlib import nullcontext

import torch
from torch import Tensor

from mgpo.objective import Objective, weighted_sum
from mgpo.policy.base import Policy
from mgpo.policy.passes.batch import Batch
from mgpo.policy.passes.logprobs import score, score_replies
from mgpo.training.step_metrics import PassMetrics, engine_metrics, score_metrics
from mgpo.types import Trajectory


def policy_loss(
    policy: Policy,
    batch: Batch,
    advantages: Tensor,
    weights_N: Tensor,
    objective: Objective,
    temperature: float,
    frozen: Policy | None = None,
    begins: bool = False,
) -> tuple[Tensor, PassMetrics]:
    """The part of a mini-batch's loss that these trajectories make, and metrics; `frozen` is the reference.

    Where a step's only update `begins`, the trainer's old log-probs are this pass's own, and what an engine drew them
    under is beside them.
    Advantages are those of whole trajectories, (N,), or of each token, (N, C).
    The penalty, what is shown of it, and the bonus for entropy are of all tokens that count in the loss.
    """
    reference_NC = score_reference(policy, batch, temperature, frozen) if objective.kl_weight else None
    scores = policy(score, batch, temperature, objective.entropy_weight > 0)
    mask_NC, old_NC = batch.policy_NC, scores.logprobs_NC.detach() if begins else batch.old_logprobs_NC
    moved_N = (weights_N != 0) & (advantages != 0).view(len(weights_N), -1).any(1)
    metrics = score_metrics(batch, old_NC, scores, objective, moved_N)
    if begins:
        engine_metrics(metrics, old_NC - batch.sampled_logprobs_NC, mask_NC, objective.correction_cap)
    losses_NC = objective.losses(scores.logprobs_NC, old_NC, mask_NC, batch.turn_NC, advantages)
    losses_NC = losses_NC * objective.correction(old_NC, batch.sampled_logprobs_NC)
    if reference_NC is not None:
        kl_NC = objective.penalty(scores.logprobs_NC, reference_NC)
        losses_NC = losses_NC + objective.kl_weight * kl_NC
        counted_NC = mask_NC & (weights_N != 0)[:, None]
        metrics.add("kl", kl_NC.detach(), counted_NC)
        metrics.add("kl_clamped", objective.clamped(scores.logprobs_NC.detach(), reference_NC).float(), counted_NC)
    if objective.entropy_weight:
        assert scores.entropy_NC is not None  # a fused head is refused beside the bonus
        losses_NC = losses_NC - objective.entropy_weight * scores.entropy_NC
    return weighted_sum(losses_NC, mask_NC, weights_N), metrics


def answer_loss(policy: Policy, batch: Batch, weights_N: Tensor) -> tuple[Tensor, PassMetrics]:
    """The same for supervised fine-tuning: the negative log-likelihood of the tokens that are learnt."""
    nll_NC = -policy(score, batch).logprobs_NC
    metrics = PassMetrics()
    metrics.add("nll", nll_NC.detach(), batch.policy_NC & (weights_N != 0)[:, None])
    return weighted_sum(nll_NC, batch.policy_NC, weights_N), metrics


@torch.no_grad()
def score_reference(policy: Policy, batch: Batch, temperature: float, frozen: Policy | None) -> Tensor | None:
    """Log-probs (N, C) under the weights before training: a frozen copy, or the policy with its adapters off.

    None where there is neither.
    """
    if frozen is not None:
        return frozen(score, batch, temperature).logprobs_NC
    back = policy.reference()
    with back or nullcontext():
        return policy(score, batch, temperature).logprobs_NC if back is not None else None


def rescore(
    policy: Policy,
    trajectories: Sequence[Trajectory],
    passes: Sequence[Sequence[int]],
    objective: Objective,
    temperature: float,
) -> PassMetrics:
    """Put the log-probs under the current weights into the turns, in place; how far they are from the sampler's.

    Each of `passes` holds the rows that go through the policy together.
    """
    gaps: list[Tensor] = []
    for trajectory, scores_M in zip(trajectories, score_replies(policy, trajectories, passes, temperature)):
        learnt = [turn for turn in trajectory.turns if turn.learnt]
        for turn, score_M in zip(learnt, scores_M.split([len(turn.reply.ids) for turn in learnt])):
            turn.scored = tuple(score_M.tolist())
            gaps.append(score_M - torch.tensor(turn.reply.logprobs))
    gap_M, metrics = torch.cat(gaps), PassMetrics()
    engine_metrics(metrics, gap_M, torch.ones_like(gap_M, dtype=torch.bool), objective.correction_cap)
    return metrics
