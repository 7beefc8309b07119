"""The policy's weights in a checkpoint that a run has left behind."""

import pickle
from pathlib import Path

import torch
from torch import Tensor

from mgpo import shards
from mgpo.errors import UserError

PREFIX = "policy."
UNREADABLE = (OSError, EOFError, KeyError, IndexError, TypeError, AttributeError, RuntimeError, pickle.UnpicklingError)


def policy_weights(path: str) -> dict[str, Tensor]:
    """Read them, from a file or from shards in a folder, without running any code of theirs.

    Raises UserError where there are none.
    """
    if Path(path).is_dir():
        state = shards.weights(Path(path))
        return {name.removeprefix(PREFIX): value for name, value in state.items() if name.startswith(PREFIX)}
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)["state_dict"]
        weights = {name.removeprefix(PREFIX): value for name, value in state.items() if name.startswith(PREFIX)}
    except UNREADABLE:
        weights = {}
    if not weights:
        raise UserError(f"{path} is not a checkpoint of a run, such as runs/…/trained.ckpt")
    return weights
