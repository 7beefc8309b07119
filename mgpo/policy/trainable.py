"""Checkpoints of a policy of which a part is trained hold this part alone."""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from mgpo.errors import UserError

BASE = "base"  # by which the frozen weights are known again
ADVICE = "take path, lora and freeze_vision (under model.policy.init_args) from the run that wrote it"


def save_trained_only(policy: nn.Module) -> None:
    """From now on `state_dict` leaves out frozen weights, and `load_state_dict` leaves them as they are.

    Loading raises UserError where the checkpoint has other trained weights, or was trained on another base.
    """
    policy.register_state_dict_post_hook(_leave_out)
    policy.register_load_state_dict_pre_hook(_check_and_fill_in)


def remember_base(policy: nn.Module) -> None:
    """Keep the fingerprint of the frozen weights, which after this may be cut into shards."""
    policy.base_fingerprint = fingerprint(split(policy)[1])


def split(policy: nn.Module) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """The trained and the frozen parameters; tied ones are under each of their names."""
    parameters: dict[str, Tensor] = dict(policy.named_parameters(remove_duplicate=False))
    trained = {name: value for name, value in parameters.items() if value.requires_grad}
    return trained, {name: value for name, value in parameters.items() if name not in trained}


def fingerprint(weights: dict[str, Tensor]) -> Tensor:
    """The first values of every tensor, in bfloat16, so that the type in which a base was read does not matter."""
    if not weights:
        return torch.empty(0, dtype=torch.bfloat16, device="cpu")
    return torch.cat([value.detach().flatten()[:8].to("cpu", torch.bfloat16) for value in weights.values()])


def _known(policy: nn.Module, frozen: dict[str, Tensor]) -> Tensor:
    remembered = getattr(policy, "base_fingerprint", None)
    return fingerprint(frozen) if remembered is None else remembered


def _leave_out(policy: nn.Module, state: dict[str, Any], prefix: str, *_: Any) -> None:
    frozen = split(policy)[1]
    for name in frozen:
        del state[prefix + name]
    if frozen:
        state[prefix + BASE] = _known(policy, frozen)


def _check_and_fill_in(policy: nn.Module, state: dict[str, Any], prefix: str, *_: Any) -> None:
    base = state.pop(prefix + BASE, None)
    trained, frozen = split(policy)
    given = {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}
    known = {**trained, **frozen, **dict(policy.named_buffers())}
    if unknown := given.keys() - known.keys():
        raise UserError(f"the checkpoint holds {_counted(unknown)}, which this policy has not; {ADVICE}")
    if misshapen := [name for name, value in given.items() if value.shape != known[name].shape]:
        name = min(misshapen)
        shapes = f"{tuple(given[name].shape)} in the checkpoint and {tuple(known[name].shape)} in this policy"
        also = f" (and {len(misshapen) - 1} others don't fit)" if len(misshapen) > 1 else ""
        raise UserError(f"{name} is {shapes}{also}; {ADVICE}")
    if missing := trained.keys() - given.keys():
        raise UserError(f"the checkpoint lacks {_counted(missing)}, which this policy trains; {ADVICE}")
    if base is not None and not torch.equal(base, _known(policy, frozen)):
        raise UserError(f"the checkpoint was trained on another base: its frozen weights are not these; {ADVICE}")
    state.update({prefix + name: value for name, value in frozen.items() if name not in given})


def _counted(names: Iterable[str]) -> str:
    """The first, and how many more there are."""
    first, *others = sorted(names)
    return f"{first} and {len(others)} others" if others else first
