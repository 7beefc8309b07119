"""The objective of MGPO: GRPO's, over the policy's own tokens of all turns, and its family.

Pure tensor functions, each of which names its equation; `Objective` is a choice among them.
"""

from mgpo.objective.advantages import evidence_grades, group_advantages, has_signal
from mgpo.objective.objective import Objective
from mgpo.objective.surrogates import (
    cispo_loss,
    gspo_loss,
    k3_clamped,
    kl_k1,
    kl_k2,
    kl_k3,
    outside,
    ppo_loss,
    sapo_loss,
    sequence_ratio,
    truncated_ratio,
)
from mgpo.objective.weights import token_weights, turn_factors, weighted_sum

__all__ = [
    "Objective", "cispo_loss", "evidence_grades", "group_advantages", "gspo_loss", "has_signal", "k3_clamped", "kl_k1",
    "kl_k2", "kl_k3", "outside", "ppo_loss", "sapo_loss", "sequence_ratio", "token_weights", "truncated_ratio",
    "turn_factors", "weighted_sum",
]  # fmt: skip
