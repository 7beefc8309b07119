"""What a GPU takes, beside what it would need at least: `python -m tests.performance gpu [ROW …] --model FOLDER`.

A row that fails says why, and the others go on. Nothing is fetched: weights are random, and pictures are drawn.
"""

import argparse
import os
import tempfile
import traceback
from collections.abc import Sequence
from pathlib import Path

import torch

from mgpo.policy.families.qwen2_5_vl import Qwen25VL
from mgpo.policy.lora import Lora
from mgpo.tools.plan.shape import measure_shape
from mgpo.utils.allocator import keep_freed_memory
from tests.performance.gpu_limits import PEAK, RATE, Counted
from tests.performance.gpu_model import KNOWN, TINY, make_model, make_photographs
from tests.performance.gpu_rows import ROWS, Bench, Line, Work, profiles
from tests.performance.gpu_rows import TINY as SMALL_WORK

RECIPES = {"3b": ("qwen2_5_vl_3b",), "7b": ("qwen2_5_vl_7b", "qwen2_5_vl_7b_lora")}


def run(arguments: Sequence[str]) -> list[Line]:
    """Measure and print; the lines."""
    known = "\n".join(f"  {name:10} {str(row.__doc__).splitlines()[0]}" for name, row in ROWS.items())
    parser = argparse.ArgumentParser(
        "python -m tests.performance gpu", description=__doc__, epilog=f"rows:\n{known}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    parser.add_argument("rows", nargs="*", metavar="ROW", help="which rows; all unless given")
    parser.add_argument("--model", type=Path, metavar="FOLDER", help="a checkpoint; one of --size is made unless given")
    parser.add_argument(
        "--size", choices=KNOWN, default="3b", help="of the model that is made; tiny also says how much work"
    )
    parser.add_argument("--tokenizer", type=Path, metavar="FOLDER", help="for the model that is made")
    parser.add_argument(
        "--checkpointing", type=float, default=1.0, metavar="SHARE", help="of the layers that are run again"
    )
    parser.add_argument(
        "--micro-batch", type=int, default=28672, metavar="TOKENS", help="of a step's passes; as in the 3B recipe"
    )
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--no-profile", action="store_true", help="leave out where the time goes by operator")
    chosen = parser.parse_args(arguments)
    if unknown := [name for name in chosen.rows if name not in ROWS]:
        parser.error(f"there is no row {unknown[0]}; take some of {', '.join(ROWS)}")
    keep_freed_memory()
    if chosen.device == "cuda":
        torch.set_num_threads(len(os.sched_getaffinity(0)))  # pictures are laid out by all cores, as in a run
    with tempfile.TemporaryDirectory() as folder:
        bench = make_bench(chosen, Path(folder))
        print(
            f"{device_name(chosen.device)}; shares of {PEAK / 1e12:.0f} TFLOP/s and {RATE / 1e12:.2f} TB/s", flush=True
        )
        lines = measure(bench, chosen.rows or list(ROWS))
        print(table(lines))
        if not chosen.no_profile:
            print(profiles(bench))
    return lines


def make_bench(chosen: argparse.Namespace, folder: Path) -> Bench:
    """The policy as the recipe for one GPU has it: adapters on a base in bfloat16, gradient checkpointing."""
    work = SMALL_WORK if chosen.size == TINY else Work()
    model: Path = chosen.model or folder / "model"
    if chosen.model is None:
        make_model(chosen.size, model, chosen.device, chosen.tokenizer)
    caps = dict(max_pixels=work.picture * 28 * 28, min_pixels=work.picture * 28 * 28 // 5)
    dtype = "float32" if chosen.device == "cpu" else "bfloat16"
    policy = Qwen25VL(str(model), **caps, dtype=dtype, gradient_checkpointing=chosen.checkpointing, lora=Lora()).load()
    policy.banned[policy.chat.end_id] = True  # all replies are equally long
    tied = policy.model.lm_head.weight is policy.model.model.language_model.embed_tokens.weight
    counted = Counted(measure_shape(policy.model.config), tied, lora=True, checkpointing=chosen.checkpointing)
    questions = make_photographs(folder / "photographs", 4 * work.questions, work.photograph)
    recipe = RECIPES.get(chosen.size, RECIPES["3b"])
    return Bench(
        model, questions, policy.to(chosen.device), counted, work, chosen.device, recipe,
        micro_batch=chosen.micro_batch,
    )  # fmt: skip


def measure(bench: Bench, names: Sequence[str]) -> list[Line]:
    """Row by row, each printed as soon as it is there."""
    lines: list[Line] = []
    for name in names:
        try:
            found = ROWS[name](bench)
        except Exception as error:  # of one row: what the others measure is not lost
            traceback.print_exc(limit=-8)
            found = [Line(name, f"failed: {type(error).__name__}: {str(error)[:300]}")]
        print(table(found), flush=True)
        lines += found
        if bench.device == "cuda":
            torch.cuda.empty_cache()
    return lines


def device_name(device: str) -> str:
    if device == "cpu":
        return "CPU, whose shares of a GPU's limits mean nothing"
    return f"{torch.cuda.get_device_name()}, torch {torch.__version__}, CUDA {torch.version.cuda}"


def table(lines: Sequence[Line]) -> str:
    """In Markdown."""
    rows = ["| what | measured | counted limit | share of it | aim |", "|---|---|---|---|---|"]
    for line in lines:
        share = "" if line.share is None else f"{line.share:.1%}"
        rows.append(f"| {line.what} | {line.measured} | {line.limit} | {share} | {line.aim} |".replace("\n", " "))
    return "\n".join(rows)
