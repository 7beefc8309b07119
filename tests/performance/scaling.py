"""Strong scaling of the training pass: the same step on one process and one core, and in shards on two of each.

    python -m tests.performance.scaling [--questions 64] [--updates 4]

Questions with eight rollouts each of the embedded model, dealt to the ranks; an update scores them, goes back,
clips and steps. Rollouts are made before, and not timed: there ranks exchange nothing but one gathering of the weights.
"""

import argparse
import os
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from torch import distributed
from torch.distributed.device_mesh import init_device_mesh

from mgpo.data.scenes import Scenes
from mgpo.dialogues import TwoTurn
from mgpo.distributed import clip_gradients, shard
from mgpo.images.boxes import BoxRule
from mgpo.policy.families.qwen2_5_vl import Qwen25VL
from mgpo.policy.passes.batch import collate
from mgpo.policy.passes.logprobs import score
from mgpo.rollout.episodes import roll_out
from mgpo.rollout.in_process import InProcessSampler, Sampling
from mgpo.world.model import CAPS
from tests.helpers.sharded import launch

GROUP = 8


def updates(rank: int, folder: Path) -> None:
    """Time them on this rank's part, pinned to a core of its own; rank 0 writes the seconds of one."""
    ranks, questions, count = (int(os.environ[name]) for name in ("WORLD_SIZE", "QUESTIONS", "UPDATES"))
    os.sched_setaffinity(0, {sorted(os.sched_getaffinity(0))[rank]})
    distributed.init_process_group("gloo")
    policy = Qwen25VL(**CAPS).load().eval()
    source = Scenes(questions, side=512)
    mine = [(source[i], source[i].picture.load()) for i in range(rank, questions, ranks)]
    rows = roll_out(policy, InProcessSampler(), TwoTurn(rule=BoxRule(min_side=20)), mine, GROUP, Sampling(32), (0, 0))
    batch = collate(rows, policy.positions, policy.pad_id)
    if ranks > 1:
        shard(policy, init_device_mesh("cpu", (ranks,)))
    policy.train()
    optimizer = torch.optim.AdamW(policy.parameters(), lr=1e-6)
    for update in range(count + 1):
        if update == 1:  # the first one makes room
            distributed.barrier()
            start = time.perf_counter()
        (-policy(score, batch).logprobs_NC.sum() / len(rows)).backward()
        clip_gradients(policy, 1.0)
        optimizer.step()
        optimizer.zero_grad()
    distributed.barrier()
    if rank == 0:
        (folder / str(ranks)).write_text(str((time.perf_counter() - start) / count))


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--questions", type=int, default=64)
    parser.add_argument("--updates", type=int, default=4)
    chosen = parser.parse_args()
    os.environ |= {"QUESTIONS": str(chosen.questions), "UPDATES": str(chosen.updates)}
    with TemporaryDirectory() as name:
        for ranks in (1, 2):
            launch(updates, Path(name), ranks)
        one, two = (float((Path(name) / str(ranks)).read_text()) for ranks in (1, 2))
    print(f"an update: {one:.2f} s on one core, {two:.2f} s in shards on two: {one / two:.2f} times as fast")


if __name__ == "__main__":
    main()
