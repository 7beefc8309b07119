"""Forward and backward pass of a group's policy loss: its prompt passed once against plain rows.

The lengths are those of two turns at the paper's pixel cap: a prompt of 1,400 tokens, and 8 continuations of 1,600 of
which 350 were sampled. The plain pass is 8 whole rows through the stock decoder without any mask, and full logits of
the sampled tokens only. Both compute the same loss, which is checked.
"""

import torch
from torch.nn import functional as F

from mgpo.loss import policy_loss
from mgpo.objective import Objective, weighted_sum
from mgpo.policy.batch import Batch, collate
from mgpo.policy.qwen2_5_vl import Qwen25VL
from tests.benchmarks.pairs import Options, Row, faster, peak_bytes, run_pairs, smaller
from tests.benchmarks.synthetic import drop_gradients, group, random_policy

PROMPT, PIECES, GROUP = 1400, (100, 1250, 250), 8
WIDTH, LAYERS, VOCABULARY, MLP = 256, 4, 8192, 768
OBJECTIVE = Objective()


def measure(options: Options) -> list[Row]:
    """Seconds by pairs; memory as the peak of all tensors that are alive, besides weights."""
    policy = random_policy(WIDTH, LAYERS, VOCABULARY, MLP)
    trajectories = group(GROUP, PROMPT, PIECES, VOCABULARY)
    advantages_N = torch.tensor([1.0, -1.0]).repeat(GROUP // 2)
    weights_N = torch.full((GROUP,), 1 / (GROUP * sum(PIECES[::2])))

    def ours() -> float:
        batch = collate(trajectories, policy.positions, policy.pad_id)
        loss, _ = policy_loss(policy, batch, advantages_N, weights_N, OBJECTIVE, 1.0)
        loss.backward()
        drop_gradients(policy)
        return loss.item()

    def theirs() -> float:
        batch = collate(trajectories, policy.positions, policy.pad_id)
        loss = plain_loss(policy, batch, advantages_N, weights_N)
        loss.backward()
        drop_gradients(policy)
        return loss.item()

    torch.testing.assert_close(ours(), theirs(), atol=1e-5, rtol=1e-4)
    held = [*policy.parameters(), *policy.buffers()]
    peaks = peak_bytes(ours, held), peak_bytes(theirs, held)
    what, against = "training pass, prompt shared", "plain rows in the stock model"
    return [
        faster(what, against, 1.6, run_pairs(ours, theirs, options.pairs)),
        smaller(f"{what}: peak memory", against, 0.6, *peaks),
    ]


def plain_loss(policy: Qwen25VL, batch: Batch, advantages_N: torch.Tensor, weights_N: torch.Tensor) -> torch.Tensor:
    """The same loss from whole rows. A continuation begins with the prompt's last token."""
    ids_NT = torch.cat([batch.prefix_ids_BP[batch.owner_N], batch.ids_NC], 1)
    hidden_NTD = policy.model.model.language_model(input_ids=ids_NT, use_cache=False).last_hidden_state
    hidden_NCD = hidden_NTD[:, batch.prefix_ids_BP.shape[1] :]
    chosen_NC = batch.policy_NC[:, 1:]
    logprobs_MV = F.log_softmax(policy.model.lm_head(hidden_NCD[:, :-1][chosen_NC]), -1)
    targets_M = batch.ids_NC[:, 1:][chosen_NC]
    logprobs_M = logprobs_MV.gather(-1, targets_M[:, None]).squeeze(-1)
    logprobs_NC = torch.zeros(batch.ids_NC.shape).index_put(batch.policy_NC.nonzero(as_tuple=True), logprobs_M)
    losses_NC = OBJECTIVE.losses(logprobs_NC, batch.sampled_logprobs_NC, batch.policy_NC, batch.turn_NC, advantages_N)
    return weighted_sum(losses_NC, batch.policy_NC, weights_N)
