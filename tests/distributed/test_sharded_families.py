"""Every model family in shards: the gradients of a whole policy, though ranks hold batches of different form."""

import copy
from dataclasses import replace

import pytest
import torch
from torch import distributed
from torch.distributed.device_mesh import init_device_mesh

from mgpo.dialogues import TwoTurn
from mgpo.distributed import gathered, shard
from mgpo.images.boxes import BoxRule
from mgpo.policy import features
from mgpo.policy.hub.checkpoint_files import family_of
from mgpo.policy.lora import Lora
from mgpo.policy.passes.batch import collate
from mgpo.policy.passes.logprobs import score
from mgpo.rollout.episodes import roll_out
from mgpo.rollout.in_process import InProcessSampler, Sampling
from tests.conftest import make_question, noise_image
from tests.helpers.families import ALL, save_checkpoint
from tests.helpers.sharded import full, launch

SIZES = [(448, 448), (300, 500)]
QUICK = ("qwen3_5_moe", "gemma3")
MORE = [
    dict(),
    dict(lora=Lora(rank=2, vision=True), dtype="bfloat16", gradient_checkpointing=True),
    dict(freeze_vision=True),
]


def rollouts(policy, rank):
    """Rank 1 has more questions, longer replies, and no picture after the first."""
    samples = [(make_question(noise_image(*s), f"{rank} {s}"), noise_image(*s, seed=rank)) for s in SIZES[: 1 + rank]]
    dialogue, sampling = TwoTurn(rule=BoxRule(min_side=8)), Sampling(max_new_tokens=8 + 4 * rank)
    rows = roll_out(policy, InProcessSampler(), dialogue, samples, 2 + rank, sampling, (0, rank))
    return [replace(row, turns=row.turns[:1]) for row in rows] if rank else rows


def loss_of(policy, batch):
    logprobs = policy(score, batch).logprobs_NC
    return (logprobs * torch.randn(logprobs.shape, generator=torch.Generator().manual_seed(0))).sum()


def compare(family, folder, rank, options):
    """A sharded policy against a whole one that passes both ranks' batches; each pass is made twice."""
    whole = family_of(str(folder))(str(folder), **family.caps, **options).load().eval()
    for name, parameter in whole.named_parameters():
        if "lora_" in name:
            parameter.data.normal_(std=0.1, generator=torch.Generator().manual_seed(len(name)))
    sharded = copy.deepcopy(whole)
    shard(sharded, init_device_mesh("cpu", (2,)))
    rows = [rollouts(whole, i) for i in (0, 1)]
    with gathered(sharded):
        mine = rollouts(sharded, rank)  # of another length on each rank
    assert [turn.reply.ids for row in mine for turn in row.turns] == [
        turn.reply.ids for row in rows[rank] for turn in row.turns
    ]
    batches = [collate(part, whole.positions, whole.pad_id) for part in rows]
    whole.train(), sharded.train()
    (sum(loss_of(whole, batch) for batch in batches) / 2).backward()
    for _ in range(2):
        sharded.zero_grad()
        with torch.no_grad():
            loss_of(sharded, batches[rank])
        loss_of(sharded, batches[rank]).backward()
    found = dict(sharded.named_parameters())
    for name, parameter in whole.named_parameters():
        if parameter.grad is None:
            assert found[name].grad is None, name
        else:
            scale = parameter.grad.abs().max().clamp(min=1)
            torch.testing.assert_close(full(found[name].grad) / scale, parameter.grad / scale, rtol=0, atol=2e-5)


def look_apart(folder, rank):
    """A tower is called equally often: one rank has more pictures than fit into a call, and later knows all of its."""
    family = next(family for family in ALL if family.name == "qwen2_5_vl")
    if rank == 0:
        save_checkpoint(family, folder)
    distributed.barrier()
    whole = family_of(str(folder))(str(folder), **family.caps, freeze_vision=True).load().eval()
    sharded = copy.deepcopy(whole)
    shard(sharded, init_device_mesh("cpu", (2,)))
    images = [whole.pixels(noise_image(112, 112, seed)) for seed in range(4)]
    own = images[:3] if rank else images[:1]
    with torch.no_grad(), pytest.MonkeyPatch.context() as patch:
        patch.setattr(features, "TOGETHER", 1)
        for shown in (own, own, [*own, *images[rank + 2 :]] if rank else own):
            found = sharded(lambda policy, images: policy.features(images), shown)
            torch.testing.assert_close(found, whole.features(shown))


def work(rank, folder, names=QUICK, every=(dict(gradient_checkpointing=True),)):
    distributed.init_process_group("gloo")
    for family in (family for family in ALL if family.name in names):
        place = folder / family.name
        if rank == 0:
            place.mkdir()
            save_checkpoint(family, place)
        distributed.barrier()
        for options in every:
            compare(family, place, rank, options)
        (place / "compared").touch()
    look_apart(folder / "apart", rank)


def work_others(rank, folder):
    work(rank, folder, [family.name for family in ALL if family.name not in QUICK])


def work_more(rank, folder):
    work(rank, folder, [family.name for family in ALL], MORE)


def test_shards_have_the_gradients_of_a_whole_policy(two_ranks):
    assert {path.parent.name for path in two_ranks.glob("*/compared")} == set(QUICK)


@pytest.mark.slow
@pytest.mark.parametrize("work", [work_others, work_more])
def test_so_they_have_in_all_families_with_parts_frozen_and_without_recomputing(tmp_path, work):
    launch(work, tmp_path, seconds=1200)  # minutes on a busy machine
