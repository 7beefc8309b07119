"""Which modules are cut and gathered together, and when.

Every decoder layer and every vision block is a unit of its own; embeddings, head, norms and what projects image
features are the root's, which is the policy itself. `policy(work, …)` is the root's pass: the root's weights are there
from its beginning to the end of the backward pass, and are reduced once, whatever `work` calls and however often. So
tied weights need no care, and all ranks exchange the same, whatever their batches hold.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import CPUOffloadPolicy, FSDPModule, MixedPrecisionPolicy, OffloadPolicy, fully_shard
from torch.distributed.tensor import DTensor
from transformers.modeling_layers import GradientCheckpointingLayer

from mgpo.policy.base import Policy
from mgpo.policy.trainable import remember_base

Hooked = tuple[Any, ...]


def shard(policy: Policy, mesh: DeviceMesh, precision: str = "32-true", cpu_offload: bool = False) -> None:
    """Cut a loaded policy over a mesh, in place. A copy of it must be made before that.

    Args:
        policy: Whole, the same on all ranks.
        mesh: Of one dimension; with two, weights are cut over the second and replicated over the first.
        precision: As `trainer.precision`; under "bf16-mixed" gathered weights are bfloat16, gradients are added up in
            float32, and the shards that the optimiser sees keep their type.
        cpu_offload: Shards, gradients and optimiser states lie in the host's memory.
    """
    remember_base(policy)
    options: dict[str, Any] = {"mesh": mesh, "mp_policy": mixed(precision)}
    options["offload_policy"] = CPUOffloadPolicy(torch.cuda.is_available()) if cpu_offload else OffloadPolicy()
    for module in list(policy.modules()):
        if isinstance(module, GradientCheckpointingLayer):
            fully_shard(module, **options)
    _let_every_pass_learn(policy)
    fully_shard(policy, reshard_after_forward=False, **options)
    policy.register_forward_hook(_let_go)
    if cpu_offload:
        policy._apply = lambda *_, **__: policy  # whatever else moves to a device, the shards stay


def mixed(precision: str) -> MixedPrecisionPolicy:
    """The types in which gathered weights compute and gradients are summed, by `trainer.precision`."""
    half = torch.bfloat16 if precision == "bf16-mixed" else None
    return MixedPrecisionPolicy(half, half and torch.float32, cast_forward_inputs=False)


@contextmanager
def gathered(policy: Policy, wanted: bool = True) -> Iterator[None]:
    """Within it a sharded policy is whole on every rank, and no pass exchanges anything.

    Nothing is done to other policies, or where it is not `wanted`. All ranks must enter and leave. In between they may
    pass as often as they like, without gradients.
    """
    if not wanted or policy.is_gathered or not isinstance(policy, FSDPModule):
        yield
        return
    with torch.no_grad():
        policy(_nothing)  # the root gets to know its units in its first pass
    units = [module for module in policy.modules() if isinstance(module, FSDPModule)]
    for unit in units:
        unit.set_reshard_after_forward(False, recurse=False)
        unit.unshard()
    policy.is_gathered = True
    try:
        yield
    finally:
        policy.is_gathered = False
        policy.reset_iter_state()
        for unit in units:
            unit.set_reshard_after_forward(unit is not policy, recurse=False)


def clip_gradients(policy: Policy, largest: float) -> float:
    """Clip to a norm over all ranks' shards, in place; the norm as it was."""
    norm = nn.utils.clip_grad_norm_(policy.parameters(), largest)
    return (norm.full_tensor() if isinstance(norm, DTensor) else norm).item()


def _nothing(policy: Policy) -> None:
    pass


def _let_go(policy: Any, inputs: Hooked, output: Any) -> None:
    """A pass without gradients leaves no weights gathered and nothing noted for a backward pass."""
    if not torch.is_grad_enabled() and not policy.is_gathered:
        policy.reset_iter_state()


def _let_every_pass_learn(policy: Policy) -> None:
    """Tie every pass through the last decoder layer to the result, with a gradient of zero.

    Of the prefixes' last layer only keys and values are used. Their gradient would reach a layer whose output has
    none, and it is the gradient of the output that gathers a unit.
    """
    ends: list[Tensor] = []

    def note(layer: Any, inputs: Hooked, output: Tensor) -> None:
        if torch.is_grad_enabled() and output.requires_grad:
            ends.append(output)

    def tie(policy: Any, inputs: Hooked, output: Any) -> Any:
        nothing = sum(end[:0].sum() for end in ends)
        ends.clear()
        return output._replace(logprobs_NC=output.logprobs_NC + nothing) if torch.is_tensor(nothing) else output

    policy.model.model.language_model.layers[-1].register_forward_hook(note)
    policy.register_forward_hook(tie)
