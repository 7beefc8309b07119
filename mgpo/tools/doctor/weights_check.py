"""Weights are numbers. That none is missing is seen when they are read."""

from mgpo.policy.base import Policy
from mgpo.policy.hub.weight_files import named, not_finite
from mgpo.tools.doctor.case import Result


def finite_weights(policy: Policy) -> Result:
    """No weight is NaN or infinite, wherever it came from: a checkpoint that is gone on from may bring them too."""
    state = dict(policy.named_parameters())
    if broken := not_finite(state):
        return Result("weights", False, f"{len(broken)} of {len(state)} hold NaN or infinity: {named(broken)}")
    return Result("weights", True, f"all {len(state)} are numbers")
