"""Several ranks in processes of their own, and small runs that should come out the same on any number of them."""

import copy
import os
import socket
import time

import lightning as L
import torch
from torch import multiprocessing
from torch.distributed.tensor import DTensor

from mgpo.data.module import VQAData
from mgpo.data.scenes import Scenes
from mgpo.dialogues import SingleTurn
from mgpo.distributed import FSDP2Strategy
from mgpo.objective import Objective
from mgpo.policy.lora import Lora
from mgpo.rollout.in_process import Sampling
from mgpo.world.tokenizer import train_tokenizer
from tests.conftest import make_policy
from tests.training.test_module import Noisy

LORA = Lora(rank=2, alpha=4)
KINDS = {
    "sft": dict(supervised=True),
    "grpo": dict(dialogue=SingleTurn(), objective=Objective(normalisation="sequence")),
    "mgpo": dict(objective=Objective(kl_weight=0.1)),
}


def launch(work, folder, ranks=2, seconds=240):
    """`work(rank, folder)` on each rank."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    running = multiprocessing.spawn(_start, (work, folder, ranks, port), nprocs=ranks, join=False)
    deadline = time.monotonic() + seconds
    try:
        while not running.join(5):
            assert time.monotonic() < deadline, "a rank hangs"
    finally:
        for process in running.processes:
            process.kill()


def quick(rank, folder):
    """All that takes no `slow` mark, in one go: processes take longer to start than to do it."""
    from tests.callbacks.test_grounding_audit import audit_apart
    from tests.callbacks.test_launching import interrupt_one
    from tests.checkpoints.test_sharded import save_and_resume
    from tests.distributed.test_sharded_families import work
    from tests.distributed.test_sharding import learn
    from tests.metrics.test_metric_ranks import compute_apart
    from tests.training.test_guard_ranks import leave_out

    for part in (compute_apart, work, learn, save_and_resume, leave_out, audit_apart, interrupt_one):
        part(rank, folder)


def _start(rank, work, folder, ranks, port):
    place = dict(RANK=rank, LOCAL_RANK=rank, NODE_RANK=0, WORLD_SIZE=ranks, MASTER_ADDR="127.0.0.1", MASTER_PORT=port)
    os.environ.update({name: str(value) for name, value in place.items()})
    torch.set_num_threads(1)
    work(rank, folder)


def make(kind, lora=None, **options):
    """A module with a random policy, in which rounding stays rounding.

    Adam's eps keeps a gradient that is rounding alone from being a full step. Few tokens may be drawn, so that hardly a
    draw falls so near to a boundary between two that rounding decides.
    """
    policy = make_policy(train_tokenizer(), lora=lora).train()
    if kind != "sft":  # which forces what it likes
        policy.banned[torch.arange(len(policy.banned)) % 37 != 0] = True
        policy.banned[policy.chat.end_id] = False
    sampling = Sampling(max_new_tokens=4)
    module = Noisy(policy, group_size=4, sampling=sampling, **{"optimizer": adam, **KINDS[kind], **options})
    if module.objective.kl_weight and lora is None:
        module.references = [copy.deepcopy(policy).requires_grad_(False).eval()]
    return module


def adam(parameters):
    return torch.optim.AdamW(parameters, lr=1e-3, eps=1e-4, weight_decay=0.0)


def fit(module, folder, ranks=1, steps=20, ckpt_path=None, strategy=None, **options):
    """Four questions a step, whatever the number of ranks; what was published at each step, and the weights."""
    published = []
    publish = module.publish
    module.publish = lambda: publish() or published.append(module.published)
    data = VQAData(train=Scenes(4 * 20, side=128), batch_size=4 // ranks, num_workers=0)
    if ranks > 1 or strategy is not None:
        options |= dict(strategy=strategy or FSDP2Strategy(), inference_mode=False)
    options = dict(enable_checkpointing=False) | options
    trainer = L.Trainer(
        accelerator="cpu", devices=ranks, max_steps=steps, max_epochs=1, default_root_dir=folder, logger=False,
        enable_model_summary=False, enable_progress_bar=False, use_distributed_sampler=False, limit_val_batches=0,
        **options,
    )  # fmt: skip
    trainer.fit(module, data, ckpt_path=ckpt_path, weights_only=True if ckpt_path else None)
    return published, whole(module.policy)


def whole(policy):
    return {name: full(p.detach()).clone() for name, p in policy.named_parameters() if p.requires_grad}


def full(value):
    return value.full_tensor() if isinstance(value, DTensor) else value
