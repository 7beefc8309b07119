"""A step of MGPO in two turns: 8 questions, 8 rollouts of exactly 32 tokens a turn, one update on both turns.

TRL's `rollout_func` can mask what the policy did not sample (`env_mask`), but trains on the data set's pictures alone;
a picture that comes in mid-episode is trained on only where a tool returned it. So there every reply counts as a call
of a tool that cuts the same part from the original, and TRL goes on from the whole history, as it always does. Its
episodes are one token shorter: it doesn't close a reply that was cut at its limit.
"""

from tests.performance.against_trl import measure_steps
from tests.performance.job import LEAST, SMALL
from tests.performance.pairs import Options, Row, faster

NEW_TOKENS = 32  # a turn


def measure(options: Options) -> list[Row]:
    """Whole steps of both training loops. Here pictures are shrunk from originals, there they are given shrunk."""
    return [
        faster(
            f"MGPO step, two turns, pictures of {picture} tokens", "TRL 1.16 GRPOTrainer with a tool", 3,
            measure_steps(options, 2, NEW_TOKENS, picture),
        )
        for picture in (LEAST, SMALL)
    ]  # fmt: skip
