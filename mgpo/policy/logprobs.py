"""Log-probs of the policy's own tokens, with every prompt passed once and logits only where needed."""

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from mgpo.policy.base import Policy
from mgpo.policy.batch import Batch

CHUNK = 1024  # rows of logits in memory at a time


class Scores(NamedTuple):
    """Of each policy token: its log-prob and the entropy of the distribution it came from, in nats; zero elsewhere."""

    logprobs_NC: Tensor
    entropy_NC: Tensor


def score(policy: Policy, batch: Batch, temperature: float = 1.0) -> Scores:
    """Score a batch under the current weights.

    The prefixes go through the decoder once; each continuation attends to its own prefix's cache.
    Equal to a plain pass over whole rows, in values and gradients.
    """
    hidden_NCD = continue_prefixes(policy, batch)
    chosen_NC = batch.policy_NC[:, 1:]
    hidden_MD, targets_M = hidden_NCD[:, :-1][chosen_NC], batch.ids_NC[:, 1:][chosen_NC]
    logprobs, entropies = [], []
    for hidden, targets in zip(hidden_MD.split(CHUNK), targets_M.split(CHUNK)):
        logprob, entropy = checkpoint(_score_chunk, policy, hidden, targets, temperature, use_reentrant=False)
        logprobs.append(logprob)
        entropies.append(entropy)
    spread = batch.policy_NC.nonzero(as_tuple=True)
    zeros_NC = torch.zeros(batch.ids_NC.shape, device=hidden_NCD.device)
    return Scores(
        zeros_NC.index_put(spread, torch.cat(logprobs)), zeros_NC.index_put(spread, torch.cat(entropies).detach())
    )


def continue_prefixes(policy: Policy, batch: Batch) -> Tensor:
    """Hidden states (N, C, width) of the continuations."""
    prefix_tokens = int((batch.prefix_ids_BP == policy.chat.image_id).sum())
    features = policy.features(batch.images) if batch.images else None
    first, later = (None, None) if features is None else (features[:prefix_tokens], features[prefix_tokens:])
    cache = policy.new_cache()
    policy.decode(batch.prefix_ids_BP, first, batch.prefix_positions_3BP, None, cache)
    cache.batch_select_indices(batch.owner_N)
    return policy.decode(batch.ids_NC, later, batch.positions_3NC, attention_mask(batch), cache)


def attention_mask(batch: Batch) -> Tensor:
    """(N, 1, C, P + C): a continuation sees its own prefix without padding, and itself causally."""
    rows, width = batch.ids_NC.shape
    causal = torch.ones(width, width, dtype=torch.bool, device=batch.ids_NC.device).tril()
    prefix = batch.prefix_valid_BP[batch.owner_N][:, None, None, :].expand(-1, 1, width, -1)
    return torch.cat([prefix, causal.expand(rows, 1, -1, -1)], -1)


def _score_chunk(policy: Policy, hidden: Tensor, targets: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
    logprobs = F.log_softmax(policy.logits(hidden) / temperature, -1)
    entropy = -(logprobs.exp() * logprobs.masked_fill(policy.banned, 0.0)).sum(-1)
    return logprobs.gather(-1, targets[:, None]).squeeze(-1), entropy
