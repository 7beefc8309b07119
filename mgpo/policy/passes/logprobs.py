"""Log-probs of the policy's own tokens, with every prompt passed once and logits only where needed."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn.utils.rnn import pad_sequence
from torch.utils.checkpoint import checkpoint

from mgpo.policy.base import Policy
from mgpo.policy.liger import fused_logprobs
from mgpo.policy.passes.batch import Batch, collate
from mgpo.types import Trajectory

CHUNK = 2**24  # logits in memory at a time …
LEAST_ROWS = 1024  # … or those of this many tokens, or of as many as a state is wide


class Scores(NamedTuple):
    """Of each policy token: its log-prob and the entropy of the distribution it came from, in nats; zero elsewhere.

    A fused head does not know entropies.
    """

    logprobs_NC: Tensor
    entropy_NC: Tensor | None


def score(policy: Policy, batch: Batch, temperature: float = 1.0, learn_entropy: bool = False) -> Scores:
    """Score a batch under the current weights; entropies have a gradient only where they are learnt from.

    Every prompt goes through the decoder once; its continuations attend to it. Equal to a plain pass over whole
    rows, in values and gradients.
    """
    hidden_MD, targets_M = predicting(policy, batch), batch.ids_NC.flatten()[batch.sampled_M]
    logprobs_M, entropy_M = score_tokens(policy, hidden_MD, targets_M, temperature, learn_entropy)
    return Scores(_spread(logprobs_M, batch), None if entropy_M is None else _spread(entropy_M, batch))


def _spread(values_M: Tensor, batch: Batch) -> Tensor:
    """Values of the policy's tokens at their places, (N, C); zero elsewhere."""
    zeros = torch.zeros(batch.ids_NC.numel(), device=values_M.device)
    return zeros.index_put((batch.sampled_M,), values_M).view_as(batch.ids_NC)


@torch.no_grad()
def score_replies(
    policy: Policy, trajectories: Sequence[Trajectory], passes: Sequence[Sequence[int]], temperature: float = 1.0
) -> list[Tensor]:
    """The log-probs of each trajectory's learnt tokens under the current weights, on the CPU.

    Each of `passes` holds the rows that go through the policy together; all rows are in one.
    """
    scores = [torch.empty(0)] * len(trajectories)
    for rows in passes:
        batch = collate([trajectories[i] for i in rows], policy.positions, policy.pad_id)
        scores_NC = policy(score, batch.to(policy.device), temperature).logprobs_NC.float().cpu()
        for i, row_C, mask_C in zip(rows, scores_NC, batch.policy_NC):
            scores[i] = row_C[mask_C]
    return scores


def score_tokens(
    policy: Policy, hidden_MD: Tensor, targets_M: Tensor, temperature: float, learn_entropy: bool = False
) -> tuple[Tensor, Tensor | None]:
    """Log-probs and entropies of tokens, both (M,) in nats, given the hidden states before them.

    Logits are made in chunks and again in the backward pass, so memory does not grow with M times the vocabulary.
    Each chunk makes a gradient of the head, so with few rows a wide vocabulary would cost more to sum than to multiply.
    """
    if policy.fused_head:
        logprobs_M = fused_logprobs(hidden_MD, policy.head_weight, targets_M, policy.banned, temperature)
        return logprobs_M, None
    rows = max(CHUNK // len(policy.banned), min(hidden_MD.shape[1], LEAST_ROWS))
    if len(targets_M) <= rows:
        return _score_chunk(policy, hidden_MD, targets_M, temperature, learn_entropy, [True])
    scored = [
        checkpoint(_score_chunk, policy, hidden, targets, temperature, learn_entropy, [True], use_reentrant=False)
        for hidden, targets in zip(hidden_MD.split(rows), targets_M.split(rows))
    ]
    return torch.cat([logprobs for logprobs, _ in scored]), torch.cat([entropy for _, entropy in scored])


def predicting(policy: Policy, batch: Batch) -> Tensor:
    """Hidden states (M, width) from which the policy tokens are drawn, row by row."""
    features = policy.features(batch.images) if batch.images else None
    if not policy.packs:
        return _continue_prefixes(policy, batch, features)[:, :-1][batch.policy_NC[:, 1:]]
    placeholders, known = batch.sequence_ids.count(policy.chat.image_id), 0 if features is None else len(features)
    if placeholders != known:
        raise ValueError(f"{placeholders} image placeholders, but {known} image features")
    ids_1T, positions_31T = batch.sequence_4T[:1], batch.sequence_4T[1:, None]
    return policy.decode(ids_1T, features, positions_31T, None, None, batch.packing)[0]


def _continue_prefixes(policy: Policy, batch: Batch, features: Tensor | None) -> Tensor:
    """Hidden states (N, C, width) of the continuations, each on a copy of its prompt's cache; what begins anew has
    rows and a cache of its own."""
    image_id, anew_NC, any_anew = policy.chat.image_id, batch.anew_NC, bool(batch.anew_NC.any())
    ids_NC = batch.ids_NC.masked_fill(anew_NC, policy.pad_id)
    prefixes = int((batch.prefix_ids_BP == image_id).sum())
    end = prefixes + int((ids_NC == image_id).sum()) if any_anew else None
    parts = slice(prefixes), slice(prefixes, end), slice(end, None)
    first, later, last = (None if features is None else features[part] for part in parts)
    cache = policy.new_cache()
    policy.decode(batch.prefix_ids_BP, first, batch.prefix_positions_3BP, None, cache)
    cache.batch_select_indices(batch.owner_N)
    hidden_NCD = policy.decode(ids_NC, later, batch.positions_3NC, attention_mask(batch), cache)
    if not any_anew:
        return hidden_NCD
    return hidden_NCD.index_put(anew_NC.nonzero(as_tuple=True), _begin_anew(policy, batch, last))


def _begin_anew(policy: Policy, batch: Batch, features: Tensor | None) -> Tensor:
    """Hidden states (tokens, width) of the conversations that begin anew, each a row of its own, in their order."""
    lengths = batch.lengths_anew(batch.valid_NC)
    ids, positions = batch.ids_NC[batch.anew_NC], batch.positions_3NC[:, batch.anew_NC].T
    ids_RT = pad_sequence(list(ids.split(lengths)), True, policy.pad_id)
    positions_3RT = pad_sequence(list(positions.split(lengths)), True, 0).permute(2, 0, 1)
    hidden_RTD = policy.decode(ids_RT, features, positions_3RT, None, policy.new_cache())
    return torch.cat([row_TD[:length] for row_TD, length in zip(hidden_RTD, lengths)])


def attention_mask(batch: Batch) -> Tensor:
    """The mask (N, 1, C, P + C), true where a token looks: its own prefix without padding, and itself causally."""
    rows, width = batch.ids_NC.shape
    causal = torch.ones(width, width, dtype=torch.bool, device=batch.ids_NC.device).tril()
    prefix = batch.prefix_valid_BP[batch.owner_N][:, None, None, :].expand(-1, 1, width, -1)
    return torch.cat([prefix, causal.expand(rows, 1, -1, -1)], -1)


def _score_chunk(
    policy: Policy, hidden: Tensor, targets: Tensor, temperature: float, learn_entropy: bool, first: list[bool]
) -> tuple[Tensor, Tensor]:
    logits = policy.logits(hidden)
    logits = logits if temperature == 1 else logits.div_(temperature)
    total = logits.logsumexp(-1)
    if learn_entropy:
        entropy: Tensor = _Entropy.apply(logits, total.detach(), policy.banned)
    else:
        with torch.no_grad():  # entropies are looked at only: not again in the backward pass
            entropy = _entropy(logits, total, policy.banned) if first.pop() else torch.zeros_like(total)
            first.append(False)
    return logits.gather(-1, targets[:, None]).squeeze(-1) - total, entropy


class _Entropy(torch.autograd.Function):
    """The entropy H of each row of logits, whose gradient -p (log p + H) is 0 where nothing may be sampled."""

    @staticmethod
    def forward(ctx: Any, logits_MV: Tensor, total_M: Tensor, banned_V: Tensor) -> Tensor:
        entropy_M = _entropy(logits_MV, total_M, banned_V)
        ctx.save_for_backward(logits_MV, total_M, entropy_M, banned_V)
        return entropy_M

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_M: Tensor) -> tuple[Tensor, None, None]:
        logits_MV, total_M, entropy_M, banned_V = ctx.saved_tensors
        logp_MV = logits_MV - total_M[:, None]
        p_MV = logp_MV.exp()
        slope_MV = p_MV.mul_(logp_MV.add_(entropy_M[:, None])).masked_fill_(banned_V, 0.0)
        return slope_MV.mul_(-grad_M[:, None]), None, None


def _entropy(logits: Tensor, total: Tensor, banned: Tensor) -> Tensor:
    """-sum p log p = log Z - sum p logit."""
    return total - (logits - total[:, None]).exp_().mul_(logits).masked_fill_(banned, 0.0).sum(-1)
