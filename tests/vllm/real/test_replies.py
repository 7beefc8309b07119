"""The real engine against the trainer, on the shipped model: `.ci/vllm` makes the environment in which these run."""

import copy
from dataclasses import replace

import pytest
import torch

from mgpo.dialogues import TwoTurn
from mgpo.policy.hub.checkpoint_files import family_of
from mgpo.policy.passes.batch import collate
from mgpo.policy.passes.logprobs import score
from mgpo.rollout.episodes import roll_out
from mgpo.rollout.in_process import InProcessSampler, Sampling
from mgpo.types import Prompt, Trajectory
from tests.helpers.families import ALL, save_checkpoint
from tests.vllm.real.conftest import BLOCK, gaps, ids_of, load, rollouts

pytest.importorskip("vllm", reason="vLLM is not installed")
pytestmark = [pytest.mark.vllm, pytest.mark.filterwarnings("default")]


def test_log_probs_are_the_trainers_in_both_turns(policy, trajectories):
    assert {t.parsed_box.box is None for t in trajectories} == {True, False}
    for gap in gaps(policy, trajectories):
        assert len(gap) > 40
        assert gap.max() < 1e-3


@pytest.mark.parametrize("temperature", [0.5, 2.0])
def test_they_are_those_of_the_distribution_that_is_sampled(policy, sampler, samples, temperature):
    hot = rollouts(policy, sampler, samples, temperature=temperature)
    assert max(gap.max() for gap in gaps(policy, hot, temperature)) < 1e-3
    assert max(gap.max() for gap in gaps(policy, hot)) > 0.1


def test_the_image_matters(policy, trajectories, samples):
    """Other pixels under the same ids: what the engine said was about these pictures."""
    other = trajectories[-1].turns[0].prompt.images
    swapped = copy.deepcopy(trajectories[:4])
    for t in swapped:
        t.turns[0].prompt = Prompt(t.turns[0].prompt.ids, other)
    assert gaps(policy, swapped)[0].max() > 0.1


def test_top_p_leaves_the_likeliest_tokens_and_their_own_probabilities(policy, sampler, samples):
    """Whose sum is at least 0.7: that much lower is the trainer's probability of each, and no lower."""
    nucleus = roll_out(policy, sampler, TwoTurn(), samples, 4, Sampling(32, 1.0, 0.7), (0, 0))
    batch = collate(nucleus, policy.positions, policy.pad_id)
    with torch.no_grad():
        ratio = (score(policy, batch).logprobs_NC - batch.sampled_logprobs_NC)[batch.policy_NC].exp()
    assert 0.7 - 1e-4 < ratio.min() < 0.95 and ratio.max() < 1 + 1e-4


def test_shared_prompts_and_earlier_turns_are_cached(policy, sampler, samples):
    firsts = [Trajectory(*sample) for sample in samples[:2]]
    dialogue = TwoTurn()
    prompts = [
        policy.chat.open(dialogue.open(t, policy.resolution), lambda v, t=t: policy.pixels(v.pixels(t.image)))
        for t in firsts
    ]
    talk = sampler.open(policy, prompts, 4)
    replies = [reply for _, reply in talk.reply(range(8), Sampling(32), dialogue.stop_text(0))]
    shared = [len(prompts[row // 4].ids) for row in range(8)]
    assert all(talk.cached[row] >= (shared[row] - 1) // BLOCK * BLOCK for row in range(8) if row % 4)
    before = [length + len(reply.ids) for length, reply in zip(shared, replies)]
    talk.extend([Prompt((policy.chat.end_id,))] * 8)
    list(talk.reply(range(8), Sampling(8)))
    assert all(cached >= (length - 1) // BLOCK * BLOCK > 0 for cached, length in zip(talk.cached, before))


def test_a_rollout_depends_on_its_own_seed_only(policy, sampler, samples, trajectories):
    ids = ids_of(trajectories)
    turned = ids_of(rollouts(policy, sampler, samples[::-1]))
    assert [turned[i : i + 4] for i in range(0, len(turned), 4)][::-1] == [
        ids[i : i + 4] for i in range(0, len(ids), 4)
    ]
    assert ids_of(rollouts(policy, sampler, samples[:1])) == ids[:4]
    assert ids_of(rollouts(policy, sampler, samples[:1], key=(0, 1))) != ids[:4]
    assert len(set(ids[:4])) > 1


def test_banned_tokens_are_never_sampled(policy, sampler, samples):
    banned = set(policy.banned.nonzero().flatten().tolist())
    for t in rollouts(policy, sampler, samples, copies=16, temperature=2.0):
        assert not banned & {i for turn in t.turns for i in turn.reply.ids}


def test_the_distribution_is_that_without_banned_tokens(policy, engine, samples):
    """The token with which nearly every box block begins is banned: the others share its probability."""
    narrow = copy.deepcopy(policy)
    first = rollouts(policy, InProcessSampler(), samples[:1], copies=1, temperature=0)[0].turns[0].reply
    assert first.logprobs[0] > -0.1
    narrow.banned[first.ids[0]] = True
    played = rollouts(narrow, engine, samples)
    assert all(first.ids[0] not in turn.reply.ids for t in played for turn in t.turns)
    assert max(gap.max() for gap in gaps(narrow, played)) < 1e-3


def test_greedy_replies_and_their_ends_are_those_in_process(policy, sampler, samples):
    ours, theirs = (rollouts(policy, s, samples, copies=1, temperature=0.0) for s in (InProcessSampler(), sampler))
    assert ids_of(ours) == ids_of(theirs)
    assert [[t.reply.stop for t in o.turns] for o in ours] == [[t.reply.stop for t in o.turns] for o in theirs]
    assert "marker" in {o.turns[0].reply.stop for o in ours}


def test_replies_end_behind_the_token_that_completes_the_box_block(policy, trajectories):
    marked = [t.turns[0].reply for t in trajectories if t.turns[0].reply.stop == "marker"]
    stop = TwoTurn().stop_text(0)
    assert marked
    for reply in marked:
        assert stop in policy.chat.decode(reply.ids)
        assert stop not in policy.chat.decode(reply.ids[:-1])


def blind(model):
    for name, parameter in model.named_parameters():
        if "visual" in name:
            parameter.data.fill_(torch.nan)


def test_of_a_tower_that_is_not_trained_the_engine_is_given_what_it_saw(engine, samples, monkeypatch):
    monkeypatch.setenv("VLLM_ALLOW_INSECURE_SERIALIZATION", "1")  # lets a function in
    frozen = load(freeze_vision=True)
    engine.push(frozen).llm.apply_model(blind)
    for gap in gaps(frozen, rollouts(frozen, engine, samples)):
        assert len(gap) > 40 and gap.max() < 1e-3


@pytest.mark.parametrize("wrong", ["one less", "one more", "no image", "another size"])
def test_a_corrupted_prompt_is_refused_and_the_engine_goes_on(policy, sampler, samples, trajectories, wrong):
    prompt, image_id = trajectories[0].turns[0].prompt, policy.chat.image_id
    at = prompt.ids.index(image_id)
    ids, images = prompt.ids, prompt.images
    if wrong == "one less":
        ids = ids[:at] + ids[at + 1 :]
    elif wrong == "one more":
        ids = (*ids[:at], image_id, *ids[at:])
    elif wrong == "no image":
        images = ()
    else:
        images = (policy.pixels(samples[0][1].resize((56, 56))),)
    with pytest.raises(ValueError, match="placeholders"):
        list(sampler.open(policy, [Prompt(ids, images)], 2).reply([0, 1], Sampling(4)))
    assert ids_of(rollouts(policy, sampler, samples[:1])) == ids_of(trajectories[:4])


def pack_experts(model):
    """A CPU's kernels want them packed, which vLLM 0.32 does when it starts, and not again after a push."""
    for layer in model.modules():
        if hasattr(layer, "w13_weight"):
            layer.quant_method.moe_kernel.fused_experts.process_weights_after_loading(layer)


@pytest.mark.parametrize("freeze_vision", [False, True])
@pytest.mark.parametrize("name", ["qwen3_vl", "qwen3_vl_moe"])
def test_qwen3_vl_with_its_deep_features_and_its_experts(engine, samples, tmp_path, monkeypatch, name, freeze_vision):
    """Random weights, and heads as wide as the engine's kernels need them."""
    monkeypatch.setenv("VLLM_ALLOW_INSECURE_SERIALIZATION", "1")  # lets a function in
    family = next(family for family in ALL if family.name == name)
    rope = family.text["rope_parameters"] | {"mrope_section": [6, 5, 5]}
    inner = {"moe_intermediate_size": 96} if "moe" in name else {}  # of gate and value together not the width
    wide = replace(
        family, text=family.text | dict(head_dim=32, hidden_size=64, rope_parameters=rope) | inner,
        vision=family.vision | dict(hidden_size=64, out_hidden_size=64),
    )  # fmt: skip
    folder = str(save_checkpoint(wide, tmp_path))
    policy = family_of(folder)(folder, **wide.caps, freeze_vision=freeze_vision).load().eval()
    engine.push(policy).llm.apply_model(pack_experts)
    played = roll_out(policy, engine, TwoTurn(), samples, 2, Sampling(12), (0, 0))
    for gap in gaps(policy, played):
        assert len(gap) == 12 * 12 and gap.max() < 1e-3
