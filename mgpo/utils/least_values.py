"""Numbers that can't be meant, told by the key or the argument that holds them; known without what they belong to."""

from collections.abc import Mapping
from typing import Any

from mgpo.errors import UserError

BATCH = "a batch holds at least 1 question"
UPDATES = "a step makes at least 1 update"
LEAST = {  # by key: the smallest value, and why
    "data.batch_size": (1, BATCH),
    "data.eval_batch_size": (1, BATCH),
    "data.num_workers": (0, "workers are 0 or more"),
    "model.group_size": (2, "an advantage within a group needs at least 2 rollouts"),
    "model.mini_batches": (1, UPDATES),
    "model.epochs": (1, UPDATES),
    "model.micro_batch_tokens": (1, "a pass holds at least 1 token"),
    "model.resample_batches": (1, "a step takes at least 1 batch"),
    "model.sampling.max_new_tokens": (1, "a reply has at least 1 token"),
    "model.eval_sampling.max_new_tokens": (1, "a reply has at least 1 token"),
    "model.eval_sampling.temperature": (0, "a temperature is 0 (greedy) or more"),
    "model.seed": (0, "a seed is 0 or more"),
    "data.seed": (0, "a seed is 0 or more"),
    "threads": (1, "work takes at least 1 thread"),
}
TEMPERATURE = "model.sampling.temperature"
ARGUMENTS = {  # of classes of mgpo's own, where they have one of this name: the smallest value
    "count": 0, "side": 1, "seed": 0, "limit": 1, "per_question": 1, "from_step": 0,
    "every_n_steps": 1, "flush_logs_every_n_steps": 1, "rows": 1, "questions": 1, "rollouts": 1,
    "max_pixels": 1, "min_pixels": 1, "crop_max_pixels": 1, "max_prompt_tokens": 1, "max_model_len": 1,
    "rank": 1, "alpha": 1, "replicas": 1,
}  # fmt: skip
NOTHING = {"EarlyWarning": "every_n_steps", "GroundingGallery": "questions"}  # arguments that may be 0, for none


def check_keys(values: Mapping[str, Any]) -> None:
    """Raises UserError for the first of these values, by key, that is smaller than can be meant."""
    for key, value in values.items():
        if isinstance(value, bool) or not isinstance(value, int | float):
            continue
        least, why = LEAST.get(key, (value, ""))
        if value < least:
            raise UserError(f"{key} is {value}; {why}")
        if key == TEMPERATURE and value <= 0:
            raise UserError(f"{key} is {value}; rollouts of a group must differ, so take one above 0, such as 1.0")


def at_least(where: str, **values: Any) -> None:
    """Raises UserError for the first number below what `ARGUMENTS` has for its name; `where` says whose it is."""
    for name, value in values.items():
        number = isinstance(value, int | float) and not isinstance(value, bool)
        if number and value < (least := ARGUMENTS.get(name, value)):
            raise UserError(f"{where}: {name} is {value}; it should be at least {least}")


def check_class_arguments(where: str, arguments: Mapping[str, Any]) -> None:
    """The same for the arguments of a class, in whose name `where` ends, and for those of its parts that are none."""
    nothing = NOTHING.get(where.rpartition(".")[2])
    at_least(where, **{str(name): value for name, value in arguments.items() if (name, value) != (nothing, 0)})
    for name, value in arguments.items():
        if isinstance(value, Mapping) and "class_path" not in value:
            check_class_arguments(f"{where}: {name}", value)
