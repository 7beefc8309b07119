"""Whether a step fits the device, by the plan."""

from typing import Any

import torch

from mgpo.dialogues import Dialogue
from mgpo.errors import UserError
from mgpo.tools.doctor.case import Result
from mgpo.tools.plan.command import FREE, summarise
from mgpo.tools.plan.launch import GB
from mgpo.tools.plan.settings import read
from mgpo.tools.plan.shape import measure_shape

NAME = "memory"


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
        return Result(NAME, None, "no device whose memory is known; `mgpo plan --memory 80` plans for one")
    try:
        shape = measure_shape(policy.model.config)
        launch = read(config, policy, dialogue, shape, None, int(gigabytes * GB), pictures)
    except UserError as error:
        return Result(NAME, None, str(error))
    usable = int(gigabytes * FREE * GB)
    planned = summarise(shape, launch, usable, gigabytes)
    peak = planned["memory"]["assumed"]["peak"] / GB
    text = f"a step takes {peak:.3g} GB of {gigabytes:.3g} with replies of {launch.reply} tokens"
    if planned["device"]["fits"]:
        return Result(NAME, True, text)
    return Result(NAME, False, f"{text}; `mgpo plan` says which settings fit")
