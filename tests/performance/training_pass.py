"""Forward and backward pass of a group's policy loss: its prompt passed once against plain rows.

The lengths are those of two turns at the paper's pixel cap: a prompt of 1,400 tokens, and 8 continuations of 1,600 of
which 350 were sampled. The plain pass is 8 whole rows through the stock decoder without any mask, and full logits of
the sampled tokens only. Both compute the same loss, which is checked.
"""

import torch

from mgpo.objective import Objective, weighted_sum
from mgpo.policy.passes.batch import collate
from mgpo.training.loss import policy_loss
from tests.performance.pairs import Options, Row, faster, peak_bytes, run_pairs, smaller
from tests.performance.synthetic import drop_gradients, group, plain_logprobs, random_policy

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
        losses_NC = OBJECTIVE.losses(
            plain_logprobs(policy, batch), batch.sampled_logprobs_NC, batch.policy_NC, batch.turn_NC, advantages_N
        )
        loss = weighted_sum(losses_NC, batch.policy_NC, weights_N)
        loss.backward()
        drop_gradients(policy)
        return loss.item()

    held = [*policy.parameters(), *policy.buffers()]
    losses: list[float] = []
    peaks = [peak_bytes(lambda p=p: losses.append(p()), held) for p in (ours, theirs)]
    torch.testing.assert_close(*losses, atol=1e-5, rtol=1e-4)
    what, against = "training pass, prompt shared", "plain rows in the stock model"
    return [
        faster(what, against, 1.6, run_pairs(ours, theirs, options.pairs, warm_up=0)),
        smaller(f"{what}: peak memory", against, 0.6, *peaks),
    ]
