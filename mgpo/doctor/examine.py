"""All checks on one module, which is left as it was: weights, gradients, optimiser, random numbers, order of data."""

from collections.abc import Callable
from typing import Any

import torch
from lightning.pytorch.utilities.seed import isolate_rng
from torch.optim import Optimizer

from mgpo.data.batches import Decoded
from mgpo.data.module import VQAData
from mgpo.doctor import agreement, learning, sight, tokens
from mgpo.doctor.case import Case, Result
from mgpo.doctor.memory import memory
from mgpo.doctor.weights import finite_weights
from mgpo.errors import UserError
from mgpo.module import MGPO

QUESTIONS = 2
TRIED = 16  # rows that are looked at for these
CHECKS: dict[str, Callable[[Case], Result]] = {
    "sampled ids": tokens.sampled_ids,
    "policy mask": tokens.policy_mask,
    "image tokens": tokens.image_tokens,
    "sampler = trainer": agreement.sampler_agrees,
    "trainer = stock model": agreement.stock_model_agrees,
    "positions": agreement.positions,
    "pictures matter": sight.pictures_matter,
    "boxes land": sight.boxes_land,
    "gradients": learning.gradients,
    "trained weights": learning.trained_weights,
    "length": tokens.length,
}


def examine(module: MGPO, data: VQAData, config: dict[str, Any] | None = None) -> list[Result]:
    """Every check, on the first questions of the training data. `config` is what memory is planned from.

    Raises UserError where none of these has a picture.
    """
    policy = module.policy
    weights = finite_weights(policy)
    if not weights.passed:
        return [weights]  # nothing else can be told
    training, samples = policy.training, some_samples(data)
    with isolate_rng(), torch.inference_mode(False), torch.enable_grad():
        policy.eval()
        try:
            with module.under_precision():
                case = case_of(module, samples)
            policy.train()
            results = [_run(name, check, case, module) for name, check in CHECKS.items()]
        except (ValueError, RuntimeError) as error:
            if isinstance(error, UserError):
                raise
            results = [Result("rollouts", False, f"no rollout could be played: {_line(error)}")]
        finally:
            policy.zero_grad()
            policy.train(training)
    return [weights, *results, memory(policy, module.dialogue, config)]


def case_of(module: MGPO, samples: list[tuple]) -> Case:
    """A module's policy and what surrounds it."""

    def make_optimizer() -> Optimizer:
        made = module.configure_optimizers()
        return made["optimizer"] if isinstance(made, dict) else made

    return Case(
        module.policy, module.sampler, module.dialogue, module.objective, module.sampling, samples, make_optimizer
    )


def some_samples(data: VQAData) -> list[tuple]:
    """The first questions whose pictures can be decoded, with these."""
    if data.train is None:
        raise UserError("data.train: name a source of training questions")
    decoded, found = Decoded(data.train), []
    for index in range(min(TRIED, len(decoded))):
        sample = decoded[index]
        if sample.image is not None:
            found.append((sample.question, sample.image))
        if len(found) == QUESTIONS:
            break
    if not found:
        raise UserError(f"data.train: none of its first {TRIED} questions has a picture that can be decoded")
    return found


def _run(name: str, check: Callable[[Case], Result], case: Case, module: MGPO) -> Result:
    """One check in a precision context of its own: weights that are cast without gradients are not to be kept."""
    try:
        with module.under_precision():
            return check(case)
    except (ValueError, RuntimeError) as error:
        return Result(name, False, _line(error))


def _line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
