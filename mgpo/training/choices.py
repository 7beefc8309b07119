"""Arguments of the module that can't be, or not beside each other."""

from collections.abc import Sequence
from typing import Any

from mgpo.dialogues import Dialogue
from mgpo.errors import UserError
from mgpo.rewards import Shaping
from mgpo.rollout.episodes import Sampler
from mgpo.training.self_teacher import AT_ONE_GLANCE
from mgpo.utils.interface import implementing
from mgpo.utils.least_values import TEMPERATURE, check_keys


def check_choices(module: Any) -> None:
    """Raises UserError, in a sentence, for a module that could not learn as it was asked to."""
    implementing(Dialogue, module.dialogue, "model.dialogue")
    implementing(Sampler, module.sampler, "model.sampler")
    if not isinstance(module.shaping, Sequence):
        raise UserError(
            f"model.shaping is a list, such as [{getattr(module.shaping, '__name__', type(module.shaping).__name__)}]"
        )
    for shaping in module.shaping:
        implementing(Shaping, shaping, "model.shaping")
    names = ("group_size", "mini_batches", "epochs", "micro_batch_tokens", "seed")
    numbers = {f"model.{name}": getattr(module, name) for name in names}
    numbers |= {"model.resample_batches": module.pool.batches, TEMPERATURE: module.sampling.temperature}
    check_keys(numbers)
    if not module.max_grad_norm > 0:
        raise UserError(f"model.max_grad_norm is {module.max_grad_norm}; it is above 0, or .inf, which clips nothing")
    if "{answer}" not in module.answer_form:
        raise UserError(f"model.answer_form is {module.answer_form!r}; it needs the slot {{answer}}")
    if module.objective.entropy_weight and module.policy.fused_head:
        raise UserError(
            "objective.entropy_weight needs distributions that policy.fused_head never sees; drop one of them"
        )
    if module.supervised and module.credit == "turn":
        raise UserError("model.credit turn is about rewards, and model.supervised has none; drop one of them")
    if module.teacher is not None:
        check_teaching(module)


def check_teaching(module: Any) -> None:
    """Raises UserError for what a teacher can't be combined with: it knows no rewards, and only glances."""
    others = {
        "model.supervised": module.supervised,
        "model.credit turn": module.credit == "turn",
        "model.constant_reward_groups": module.constant_reward_groups != "keep",
    }
    if wrong := [name for name, chosen in others.items() if chosen]:
        raise UserError(
            f"model.teacher judges tokens and no rewards, so that {wrong[0]} has no meaning; drop one of them"
        )
    if module.dialogue.stop_text(0) is not None:
        raise UserError(AT_ONE_GLANCE)
