"""Log-probs of 4,096 policy tokens at a vocabulary of 152,000, forward and backward: ours against full logits.

One decoder layer of width 256, so that nearly all is the head. Time is taken on a quarter of the tokens.
"""

import torch

from mgpo.policy.passes.batch import collate
from mgpo.policy.passes.logprobs import score
from tests.performance.pairs import Options, Program, Row, faster, peak_bytes, run_pairs, smaller
from tests.performance.synthetic import drop_gradients, group, plain_logprobs, random_policy

WIDTH, VOCABULARY, REPLY, ROWS = 256, 152_000, 256, 16


def measure(options: Options) -> list[Row]:
    """Memory as the peak of all tensors that are alive, besides weights; ours also has the entropy, theirs not."""
    policy = random_policy(WIDTH, 1, VOCABULARY, 512)
    tokens = group(ROWS, 8, (REPLY,), VOCABULARY)

    def programs(rows: int) -> tuple[Program, Program]:
        batch = collate(tokens[:rows], policy.positions, policy.pad_id)

        def ours() -> torch.Tensor:
            total = score(policy, batch).logprobs_NC.sum()
            total.backward()
            drop_gradients(policy)
            return total

        def theirs() -> torch.Tensor:
            total = plain_logprobs(policy, batch).sum()
            total.backward()
            drop_gradients(policy)
            return total

        return ours, theirs

    ours, theirs = programs(ROWS)
    held = [*policy.parameters(), *policy.buffers()]
    memory = smaller(
        "log-probs, 152,000 ids: peak memory", "full logits", 0.15, *(peak_bytes(p, held) for p in (ours, theirs))
    )
    pairs = run_pairs(*programs(ROWS // 4), options.pairs, warm_up=0)
    return [memory, faster("log-probs, 152,000 ids", "full logits", None, pairs)]
