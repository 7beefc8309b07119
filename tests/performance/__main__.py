"""Every row of the table of measurements: `python -m tests.performance [ROW …]`.

`python -m tests.performance gpu` measures what a GPU takes; --help.

A row pairs two programs in one run on one machine: they take turns, with the same weights, inputs and numbers of
tokens, one thread each. Printed are the median of the pairs' ratios, their spread, and the median of either side.
"""

import argparse
import os
import sys
from importlib import import_module
from pathlib import Path

import torch

from mgpo.commands.quiet import hush
from mgpo.utils.allocator import keep_freed_memory
from tests.performance import gpu
from tests.performance.pairs import Options, Row, Skipped, table

ROWS = {  # each is a module here with a function `measure`
    "grpo_step": "a GRPO step against TRL",
    "mgpo_step": "a two-turn MGPO step against TRL",
    "rollouts": "two-turn rollouts against transformers' generate",
    "training_pass": "a training pass with shared prompts against plain rows",
    "logprobs": "log-probs of a large vocabulary against full logits",
    "images": "a large JPEG's first view and crop against decoding it in full",
    "outside": "the share of a default step that is not the model's",
    "matmul_rate": "the training pass's rate of multiplications against bare ones",
}


def main() -> None:
    if sys.argv[1:2] == ["gpu"]:
        hush()
        gpu.run(sys.argv[2:])
        return
    known = "\n".join(f"  {name:14} {text}" for name, text in ROWS.items())
    parser = argparse.ArgumentParser(
        "python -m tests.performance", description=__doc__, epilog=f"rows:\n{known}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    parser.add_argument("rows", nargs="*", metavar="ROW", help="which rows; all unless given")
    parser.add_argument("--pairs", type=int, default=7, help="how often the two programs take turns")
    parser.add_argument(
        "--trl-python", default=os.environ.get("TRL_PYTHON"), metavar="PATH",
        help="the interpreter of an environment with TRL; TRL_PYTHON unless given",
    )  # fmt: skip
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="write the table there too")
    arguments = parser.parse_args()
    if unknown := [name for name in arguments.rows if name not in ROWS]:
        parser.error(f"there is no row {unknown[0]}; take some of {', '.join(ROWS)}")
    torch.set_num_threads(1)
    hush()
    keep_freed_memory()  # for both programs of a row that share this process
    options = Options(arguments.pairs, arguments.trl_python)
    rows: list[Row] = []
    names = arguments.rows or list(ROWS)
    for name in names:
        print(f"{name} …", flush=True)
        try:
            measured = import_module(f"tests.performance.{name}").measure(options)
            rows += measured
            print(table(measured), flush=True)
        except Skipped as reason:
            print(f"{name}: skipped. {reason}", flush=True)
    if len(names) > 1:
        print(table(rows))
    if rows and arguments.markdown:
        arguments.markdown.write_text(table(rows) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
