"""Keys and values of prompts that rollouts share: held once, and felt as if every row had its own."""

import pytest
import torch
from transformers import Qwen2Config

from mgpo.dialogues import FreeTurns, TwoTurn
from mgpo.policy.decoding.prompt_cache import SharedCache, as_bias, look
from mgpo.policy.decoding.row_cache import RowCache
from mgpo.rollout.episodes import roll_out
from mgpo.rollout.in_process import InProcessSampler, Sampling
from mgpo.types import Trajectory
from tests.conftest import make_question, noise_image
from tests.rollout.test_rollout import Scripted

ROWS, HEADS, SHARED, WIDTH = 5, 6, 2, 8


def dense(q, k, v, mask, scale):
    """Softmax over whole rows, in float64, with keys repeated for their heads."""
    q, k, v = (x.double() for x in (q, k, v))
    k, v = (x.repeat_interleave(q.shape[1] // k.shape[1], 1) for x in (k, v))
    scores = (q @ k.mT * scale).masked_fill(~mask, -torch.inf)
    return scores.softmax(-1) @ v, scores.logsumexp(-1)


def draw(*shape, seed=0, dtype=torch.float32):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


@pytest.mark.parametrize("new", [1, 4])
def test_a_look_is_attention_with_its_log_sum_exps(new):
    q, k, v = draw(ROWS, HEADS, new, WIDTH), draw(ROWS, SHARED, 7, WIDTH, seed=1), draw(ROWS, SHARED, 7, WIDTH, seed=2)
    mask = torch.rand(ROWS, 1, new, 7, generator=torch.Generator().manual_seed(3)) < 0.5
    mask[..., 0] = True
    found = look(q, k, v, as_bias(mask, torch.float32), 0.3)
    for ours, exact in zip(found, dense(q, k, v, mask, 0.3)):
        assert torch.allclose(ours.double(), exact, atol=1e-6)


def filled(owners, lengths, own, dtype=torch.float32):
    """A cache of one layer whose rows continue prompts of these lengths, and the same keys and values row by row."""
    cache = SharedCache(Qwen2Config(num_hidden_layers=1))
    longest = max(lengths)
    prompt = [draw(len(lengths), SHARED, longest, WIDTH, seed=seed, dtype=dtype) for seed in (1, 2)]
    valid_BP = torch.arange(longest) < torch.tensor(lengths)[:, None]
    cache.extend(valid_BP)
    cache.update(*prompt, 0)
    cache.fork(owners)
    rows = [draw(len(owners), SHARED, own, WIDTH, seed=seed, dtype=dtype) for seed in (3, 4)]
    whole = [torch.cat([p[owners], r], 2) for p, r in zip(prompt, rows)]
    return cache, rows, whole, valid_BP[owners]


@pytest.mark.parametrize("owners", [[0, 0, 0, 1, 1, 1], [0, 1, 1, 1, 1, 2], [0, 2, 2]], ids=str)
def test_both_looks_together_are_one(owners):
    """Over tokens that are shown, tokens that are sampled, and rows that are set aside and dropped in between."""
    count, scale = len(owners), 0.4
    cache, (keys, values), (whole_keys, whole_values), valid_NP = filled(owners, [9, 4, 6], 7)
    shown = torch.arange(4) < torch.arange(count).remainder(4)[:, None] + 1
    bias = cache.extend(shown)
    held = cache.update(keys[:, :, :4], values[:, :, :4], 0)
    q = draw(count, HEADS, 4, WIDTH, seed=5)
    found = cache.attend(0, q, *held, bias, scale)
    past = valid_NP[:, None, None].expand(-1, 1, 4, -1)
    mask = torch.cat([past, torch.ones(4, 4, dtype=torch.bool).tril().expand(count, 1, -1, -1)], -1)
    expected, _ = dense(q, whole_keys[:, :, :13], whole_values[:, :, :13], mask, scale)
    assert torch.allclose(found.transpose(1, 2).double(), expected, atol=1e-5)

    order, going = list(range(count)), count - 1
    cache.swap([0], [count - 1])
    order[0], order[-1] = order[-1], order[0]
    for step in range(2):
        cache.step(going, going)
        at, rows = 4 + step, order[:going]
        held = cache.update(keys[rows][:, :, at : at + 1], values[rows][:, :, at : at + 1], 0)
        q = draw(going, HEADS, 1, WIDTH, seed=6 + step)
        found = cache.attend(0, q, *held, cache.step_mask(going), scale)
        seen = torch.cat([valid_NP, shown, torch.ones(count, step + 1, dtype=torch.bool)], 1)
        end = 9 + at + 1
        picked = whole_keys[rows][:, :, :end], whole_values[rows][:, :, :end]
        expected, _ = dense(q, *picked, seen[rows][:, None, None], scale)
        assert torch.allclose(found.transpose(1, 2).double(), expected, atol=1e-5)

    cache.select([1, 2])
    rows = [order[1], order[2]]
    cache.step(2, 2)
    held = cache.update(keys[rows][:, :, 6:7], values[rows][:, :, 6:7], 0)
    q = draw(2, HEADS, 1, WIDTH, seed=9)
    found = cache.attend(0, q, *held, cache.step_mask(2), scale)
    stepped = torch.tensor([[slot < going] * 2 + [True] for slot in (1, 2)])
    seen = torch.cat([torch.cat([valid_NP, shown], 1)[rows], stepped], 1)
    expected, _ = dense(q, whole_keys[rows], whole_values[rows], seen[:, None, None], scale)
    assert torch.allclose(found.transpose(1, 2).double(), expected, atol=1e-5)


def test_under_autocast_tokens_are_held_in_its_type():
    with torch.autocast("cpu", torch.bfloat16):
        cache, (keys, values), (whole_keys, whole_values), valid_NP = filled([0, 0, 1], [5, 3], 1)
        cache.step(3, 3)
        held = cache.update(keys, values, 0)
        q = draw(3, HEADS, 1, WIDTH, seed=5)
        found = cache.attend(0, q, *held, cache.step_mask(3), 0.4)
    assert {x.dtype for x in (*held, *cache.prompts[0], found)} == {torch.bfloat16}
    mask = torch.cat([valid_NP, torch.ones(3, 1, dtype=torch.bool)], 1)[:, None, None]
    expected, _ = dense(q, whole_keys, whole_values, mask, 0.4)
    assert torch.allclose(found.transpose(1, 2).double(), expected, atol=0.05)


@pytest.fixture(scope="module")
def samples():
    images = [noise_image(448, 448, 1), noise_image(640, 320, 2), noise_image(300, 500, 3)]
    return [(make_question(image, f"q{i}"), image) for i, image in enumerate(images)]


def test_a_prompt_is_held_once_and_no_head_twice(policy, samples):
    prompts = []
    for question, image in samples:
        messages = TwoTurn().open(Trajectory(question, image), policy.resolution)
        prompts.append(policy.chat.open(messages, lambda view, image=image: policy.pixels(view.pixels(image))))
    conversation = InProcessSampler().open(policy, prompts, 8)
    said = dict(conversation.reply(range(24), Sampling(6)))
    cache, config = conversation.cache, policy.model.config.text_config
    longest, spoken = max(len(p.ids) for p in prompts), max(len(reply.ids) for reply in said.values()) - 1
    assert len(cache.prompts) == config.num_hidden_layers
    for (keys, values), layer in zip(cache.prompts, cache.layers):
        assert keys.shape[:3] == values.shape[:3] == (3, config.num_key_value_heads, longest)
        assert layer.keys.shape[:2] == (24, config.num_key_value_heads)
        assert spoken <= layer.length < longest


@pytest.mark.parametrize("dialogue", [TwoTurn(), FreeTurns(3)], ids=["two", "free"])
def test_sharing_and_copying_come_to_the_same(policy, samples, monkeypatch, dialogue):
    def play():
        return roll_out(policy, Scripted(), dialogue, samples, 4, Sampling(12), (0, 1))

    shared = play()
    monkeypatch.setattr(policy, "new_row_cache", lambda: RowCache(policy.model.config.text_config))
    for ours, copied in zip(shared, play()):
        assert [turn.reply.ids for turn in ours.turns] == [turn.reply.ids for turn in copied.turns]
        for turn, other in zip(ours.turns, copied.turns):
            assert turn.reply.logprobs == pytest.approx(other.reply.logprobs, abs=1e-5)
