"""How much of the machine's rate of multiplications a training pass reaches, 512 wide and 8 layers deep.

Counted are the products of linear layers as torch runs them, recomputation included. Attention's own are not, because
its kernel on a CPU is opaque to torch's counter; so what is printed is a lower bound.
"""

import statistics

import torch
from torch.utils.flop_counter import FlopCounterMode

from mgpo.objective import Objective
from mgpo.policy.passes.batch import collate
from mgpo.training.loss import policy_loss
from tests.performance.pairs import Options, Row, run_pairs, spread
from tests.performance.synthetic import drop_gradients, group, random_policy

PROMPT, PIECES, GROUP = 256, (32, 128, 96), 8
WIDTH, LAYERS, VOCABULARY, MLP = 512, 8, 8192, 2048
M, K, N = 1024, 512, 2048  # of the bare product, float32
REPEATS = 100


def measure(options: Options) -> list[Row]:
    """Operations over seconds, of a whole forward and backward pass and of a product of like size."""
    policy = random_policy(WIDTH, LAYERS, VOCABULARY, MLP)
    batch = collate(group(GROUP, PROMPT, PIECES, VOCABULARY), policy.positions, policy.pad_id)
    weights_N = torch.full((GROUP,), 1e-3)

    def ours() -> None:
        policy_loss(policy, batch, torch.ones(GROUP), weights_N, Objective(), 1.0)[0].backward()
        drop_gradients(policy)

    left, right = torch.randn(M, K), torch.randn(K, N)

    def bare() -> None:
        for _ in range(REPEATS):
            left @ right

    with FlopCounterMode(display=False) as counter:
        ours()
    amounts = counter.get_total_flops(), 2 * M * K * N * REPEATS
    pairs = run_pairs(ours, bare, options.pairs)
    rates = [amount / statistics.median(s) / 1e9 for amount, s in zip(amounts, (pairs.ours, pairs.theirs))]
    ratios = [ratio * amounts[0] / amounts[1] for ratio in pairs.ratios]
    return [
        Row(
            "training pass: rate of products", f"bare {M} × {K} × {N} products", statistics.median(ratios),
            *spread(ratios), *(f"{rate:.1f} GFLOP/s" for rate in rates), 0.5,
        )
    ]  # fmt: skip
