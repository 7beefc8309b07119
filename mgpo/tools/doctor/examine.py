"""All checks on one module, which is left as it was: weights, gradients, optimiser, random numbers, order of data."""

from collections.abc import Callable
from typing import Any

import torch
from lightning.pytorch.utilities.seed import isolate_rng
from torch.optim import Optimizer

from mgpo.data.batches import Decoded
from mgpo.data.module import VQAData
from mgpo.dialogues import Dialogue
from mgpo.errors import UserError, first_line
from mgpo.policy.base import Policy
from mgpo.policy.hub.weight_files import named, not_finite
from mgpo.tools.doctor import agreement, learning, tokens, vision
from mgpo.tools.doctor.case import Case, Result
from mgpo.tools.plan.command import FREE, summarise
from mgpo.tools.plan.launch import GB
from mgpo.tools.plan.settings import read
from mgpo.tools.plan.shape import measure_shape
from mgpo.training.module import MGPO

QUESTIONS = 2
TRIED = 16  # rows that are looked at for these
CHECKS: dict[str, Callable[[Case], Result]] = {
    "sampled ids": tokens.sampled_ids,
    "policy mask": tokens.policy_mask,
    "image tokens": tokens.image_tokens,
    "sampler = trainer": agreement.sampler_agrees,
    "trainer = stock model": agreement.stock_model_agrees,
    "positions": agreement.positions,
    "pictures matter": vision.pictures_matter,
    "boxes land": vision.boxes_land,
    "gradients": learning.gradients,
    "trained weights": learning.trained_weights,
    "length": tokens.length,
}


def examine(module: MGPO, data: VQAData, config: dict[str, Any] | None = None) -> list[Result]:
    """Every check, on the first questions of the training data. `config` is what memory is planned from.

    Raises UserError where none of these has a picture and fits.
    """
    policy = module.policy
    weights = finite_weights(policy)
    if not weights.passed:
        return [weights]  # nothing else can be told
    training, samples = policy.training, some_samples(module, data)
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
            about = ", ".join(f"{question.id} ({len(question.text):,} characters)" for question, *_ in samples)
            what = f"no rollout could be played of questions {about}: {first_line(error)}"
            results = [Result("rollouts", False, what)]
        finally:
            policy.zero_grad()
            policy.train(training)
    pictures = max(len(question.pictures) for question, *_ in samples)
    return [weights, *results, memory(policy, module.dialogue, config, pictures=pictures)]


def finite_weights(policy: Policy) -> Result:
    """No weight is NaN or infinite, wherever it came from: a checkpoint that is gone on from may bring them too.

    That none is missing is seen when they are read.
    """
    state = dict(policy.named_parameters())
    if broken := not_finite(state):
        return Result("weights", False, f"{len(broken)} of {len(state)} hold NaN or infinity: {named(broken)}")
    return Result("weights", True, f"all {len(state)} are numbers")


def memory(
    policy: Any,
    dialogue: Dialogue,
    config: dict[str, Any] | None,
    gigabytes: float | None = None,
    pictures: int = 1,
) -> Result:
    """The planned peak, of questions with so many pictures, against the memory of the device that is here, or
    `gigabytes`."""
    if gigabytes is None and policy.device.type == "cuda":
        gigabytes = torch.cuda.get_device_properties(policy.device).total_memory / GB
    if config is None or gigabytes is None:
        return Result("memory", None, "no device whose memory is known; `mgpo plan --memory 80` plans for one")
    try:
        shape = measure_shape(policy.model.config)
        launch = read(config, policy, dialogue, shape, None, int(gigabytes * GB), pictures)
    except UserError as error:
        return Result("memory", None, str(error))
    usable = int(gigabytes * FREE * GB)
    planned = summarise(shape, launch, usable, gigabytes)
    peak = planned["memory"]["assumed"]["peak"] / GB
    text = f"a step takes {peak:.3g} GB of {gigabytes:.3g} with replies of {launch.reply} tokens"
    if planned["device"]["fits"]:
        return Result("memory", True, text)
    return Result("memory", False, f"{text}; `mgpo plan` says which settings fit")


def case_of(module: MGPO, samples: list[tuple]) -> Case:
    """A module's policy and what surrounds it."""

    def make_optimizer() -> Optimizer:
        made = module.configure_optimizers()
        return made["optimizer"] if isinstance(made, dict) else made

    return Case(
        module.policy, module.sampler, module.dialogue, module.objective, module.sampling, samples, make_optimizer
    )


def some_samples(module: MGPO, data: VQAData) -> list[tuple]:
    """The first questions whose pictures can be decoded and that leave room for a reply, with these pictures."""
    if data.train is None:
        raise UserError("data.train: name a source of training questions")
    decoded, found = Decoded(data.train), []
    for index in range(min(TRIED, len(decoded))):
        found += module.fitting(module.usable([decoded.sample(index)]), module.sampling)
        if len(found) == QUESTIONS:
            return found
    if not found:
        tried = min(TRIED, len(decoded))
        why = next(iter(module.left_out.values()), "there are none")
        raise UserError(f"data.train: of its first {tried} questions none can be played; one of them because {why}")
    return found


def _run(name: str, check: Callable[[Case], Result], case: Case, module: MGPO) -> Result:
    """One check in a precision context of its own: weights that are cast without gradients are not to be kept."""
    try:
        with module.under_precision():
            return check(case)
    except (ValueError, RuntimeError) as error:
        return Result(name, False, first_line(error))
