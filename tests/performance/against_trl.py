"""Our trainer and TRL's on the same job, a step each in turn."""

import shutil
import sys
import tempfile
from pathlib import Path

from tests.performance.job import write_job
from tests.performance.pairs import Options, Pairs, Skipped, run_pairs
from tests.performance.protocol import Stepper

MICRO_BATCH = 64  # of TRL: all rollouts of a step in one pass, as here
WARM_UP = 2


def measure_steps(options: Options, turns: int, new_tokens: int, picture: int) -> Pairs:
    """Raises Skipped where there is no environment with TRL."""
    if options.trl_python is None or shutil.which(options.trl_python) is None:
        raise Skipped(
            "Make an environment with `python -m venv trl && trl/bin/pip install torch==2.13.0 pillow==13.0.0 "
            "trl==1.16.0`, and name its interpreter: --trl-python trl/bin/python."
        )
    with tempfile.TemporaryDirectory() as folder:
        write_job(Path(folder), turns, new_tokens, picture, MICRO_BATCH)
        sizes = (str(turns), str(new_tokens), str(picture))
        with (
            Stepper(options.trl_python, "tests.performance.trl_trainer", folder) as theirs,
            Stepper(sys.executable, "tests.performance.our_trainer", *sizes) as ours,
        ):
            pairs = run_pairs(ours, theirs, options.pairs, WARM_UP)
            print(f"tokens behind the prompt: {ours.note} here, {theirs.note} there", flush=True)
    return pairs
