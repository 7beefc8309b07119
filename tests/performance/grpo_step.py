"""A step of GRPO in one turn: 8 questions, 8 rollouts of exactly 64 tokens each, and one update on all of them."""

from tests.performance.against_trl import measure_steps
from tests.performance.job import LEAST, SMALL
from tests.performance.pairs import Options, Row, faster

NEW_TOKENS = 64


def measure(options: Options) -> list[Row]:
    """Whole steps of both training loops; pictures are in memory, as small as the model sees them."""
    return [
        faster(
            f"GRPO step, one turn, pictures of {picture} tokens", "TRL 1.16 GRPOTrainer", 3,
            measure_steps(options, 1, NEW_TOKENS, picture),
        )
        for picture in (LEAST, SMALL)
    ]  # fmt: skip
