"""The policy's weights in a checkpoint that a run has left behind."""

from pathlib import Path
from zipfile import is_zipfile

import torch
from torch import Tensor

from mgpo.checkpoints import sharded as shards
from mgpo.checkpoints.damaged import reading
from mgpo.errors import UserError
from mgpo.policy.hub.weight_files import check_finite

PREFIX = "policy."


def policy_weights(path: str) -> dict[str, Tensor]:
    """Read them, from a file or from shards in a folder, without running any code of theirs.

    Raises UserError where there are none, or they are damaged.
    """
    with reading(Path(path)):
        if Path(path).is_dir():
            state = shards.weights(Path(path))
        else:
            mapped = is_zipfile(path)  # the optimiser's states are then not read
            state = torch.load(path, map_location="cpu", weights_only=True, mmap=mapped)["state_dict"]
        weights = {name.removeprefix(PREFIX): value for name, value in state.items() if name.startswith(PREFIX)}
    if not weights:
        raise UserError(f"{path} is not a checkpoint of a run, such as runs/…/trained.ckpt: it holds no policy")
    check_finite(path, weights)
    return weights
