"""Rewards reach the weights that are to be trained, and no others."""

from collections.abc import Sequence
from dataclasses import replace
from itertools import combinations

import torch
from torch import Tensor
from torch.optim import Optimizer

from mgpo.policy.base import Policy
from mgpo.tools.doctor.case import COPIES, Case, Result
from mgpo.tools.doctor.stock import plain_logprobs
from mgpo.training.loss import policy_loss
from mgpo.types import Trajectory


def gradients(case: Case) -> Result:
    """A group of equal rewards has no gradient, without the penalty; one of unequal rewards has one."""
    name, pair = "gradients", _different(case)
    if pair is None:
        return Result(name, None, "all rollouts of a question said the same, so no reward tells them apart")
    silent = norm(case, pair, (1.0, 1.0))
    if silent != 0:
        return Result(name, False, f"a group of equal rewards has a gradient of norm {silent:.2g}, not 0")
    heard = norm(case, pair, (1.0, 0.0))
    if not 0 < heard < float("inf"):
        return Result(name, False, f"a group of unequal rewards has a gradient of norm {heard:.2g}")
    return Result(name, True, f"norm 0 for equal rewards, {heard:.2g} for unequal ones")


def trained_weights(case: Case) -> Result:
    """Checks that what is to be trained has gradients, is in the optimiser once and moves, and that the rest stays."""
    name, policy = "trained weights", case.policy
    weights = dict(policy.named_parameters())
    trained = {key for key, p in weights.items() if p.requires_grad}
    if wrong := sorted(key for key in weights if (key in trained) != _wanted(policy, key)):
        state = "trained, but should stay as it is" if wrong[0] in trained else "frozen, but should be trained"
        return Result(name, False, f"{wrong[0]}{_others(wrong)} is {state}")
    norm(case, case.sampled[:2], (1.0, 0.0))
    unused = {key for key in trained if weights[key].grad is None}
    if lost := sorted(unused & _used_by_stock_model(case)) if unused else []:
        return Result(name, False, f"the loss does not reach {lost[0]}{_others(lost)}, which should be trained")
    policy.zero_grad()
    optimizer = case.make_optimizer()
    held = [id(p) for group in optimizer.param_groups for p in group["params"]]
    if missing := sorted(key for key in trained if held.count(id(weights[key])) != 1):
        times = held.count(id(weights[missing[0]]))
        return Result(name, False, f"{missing[0]}{_others(missing)} is in the optimiser {times} times, not once")
    if len(held) > len(trained):
        return Result(name, False, f"the optimiser holds {len(held) - len(trained)} weights that are not trained")
    still = [key for key in trained if not _moves(weights[key], optimizer)]
    if firm := sorted(key for key in still if weights[key].dtype == torch.float32):
        return Result(name, False, f"a step of the optimiser does not move {firm[0]}{_others(firm)}")
    coarse = f"; for {len(still)} of them a step is rounded away" if still else ""
    coarse += f"; {len(unused)} take no part in the model" if unused else ""
    total = sum(p.numel() for p in weights.values())
    share = sum(weights[key].numel() for key in trained) / total
    return Result(name, True, f"a step moves {len(trained)} tensors, {share:.1%} of all weights, each alone{coarse}")


def norm(case: Case, trajectories: Sequence[Trajectory], rewards: tuple[float, ...]) -> float:
    """The norm of the gradient of the configured objective without penalty and bonus; gradients are left in place."""
    policy, objective = case.policy, replace(case.objective, kl_weight=0.0, entropy_weight=0.0)
    advantages_N = objective.advantages(torch.tensor([rewards])).flatten()
    lengths_N = torch.tensor([trajectory.learnt_tokens for trajectory in trajectories])
    weights_N = objective.weights(lengths_N, torch.ones(len(trajectories), dtype=torch.bool))
    batch, device = case.lay_out(trajectories), policy.device
    policy.zero_grad()
    loss, _ = policy_loss(
        policy, batch, advantages_N.to(device), weights_N.to(device), objective, case.sampling.temperature
    )
    loss.backward()
    norms = [p.grad.float().norm() for p in policy.parameters() if p.grad is not None]
    return torch.stack(norms).norm().item() if norms else 0.0


def _used_by_stock_model(case: Case) -> set[str]:
    """Names of weights that have a gradient in a plain pass: some checkpoints hold parts that nothing goes through."""
    weights = dict(case.policy.named_parameters())
    case.policy.zero_grad()
    logprobs_M = plain_logprobs(case.policy, case.sampled[0], case.sampling.temperature)
    if logprobs_M is None:
        return set(weights)
    logprobs_M.sum().backward()
    return {key for key, p in weights.items() if p.grad is not None}


def _different(case: Case) -> list[Trajectory] | None:
    """Two rollouts of a question that say different things."""
    for first in range(0, len(case.sampled), COPIES):
        for a, b in combinations(case.sampled[first : first + COPIES], 2):
            if [turn.reply.ids for turn in a.turns] != [turn.reply.ids for turn in b.turns]:
                return [a, b]
    return None


def _wanted(policy: Policy, key: str) -> bool:
    """Whether a parameter of this name is to be trained: adapters alone, the language model alone, or everything."""
    if getattr(policy, "lora", None) is not None:
        return ".lora_" in key
    return not getattr(policy, "freeze_vision", False) or ".language_model." in key or ".lm_head." in key


@torch.no_grad()
def _moves(weight: Tensor, optimizer: Optimizer) -> bool:
    """Whether a step with a gradient of ones changes this weight. One at a time, so that it takes little memory."""
    for group in optimizer.param_groups:
        group["lr"] = group.get("initial_lr", group["lr"])  # a warm-up may begin at 0
    before = weight.detach().clone()
    weight.grad = torch.ones_like(weight)
    optimizer.step()
    moved = not torch.equal(weight, before)
    weight.copy_(before)
    weight.grad = None
    optimizer.state.pop(weight, None)
    return moved


def _others(keys: Sequence[str]) -> str:
    return f" (and {len(keys) - 1} others)" if len(keys) > 1 else ""
