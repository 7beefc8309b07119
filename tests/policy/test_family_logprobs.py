"""Every family over three turns with two or three images: positions, log-probs, gradients, against the stock model."""

import copy
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch.nn import functional as F

from mgpo.dialogues import TwoTurn
from mgpo.images.boxes import BoxRule
from mgpo.policy.lora import Lora
from mgpo.policy.passes.batch import collate
from mgpo.policy.passes.logprobs import score
from mgpo.rollout.episodes import roll_out
from mgpo.rollout.in_process import InProcessSampler, Sampling
from mgpo.types import Prompt, Trajectory, Turn
from tests.conftest import make_question, noise_image
from tests.helpers.families import Family
from tests.rollout.test_rollout import of_replies

IMAGES = [noise_image(448, 448, 1), noise_image(640, 320, 2), noise_image(300, 500, 3)]
DIALOGUE = TwoTurn(rule=BoxRule(min_side=8), turns=3)


@pytest.fixture(scope="module")
def policy(family_policy):
    return family_policy


def box_reply(family: Family) -> str:
    return f'```json\n[{{"bbox_2d": {list(family.box)}, "label": "red mark"}}]\n```'


class Dictated:
    """A sampler whose first replies are dictated in every other row, token by token as if sampled."""

    exact = True

    def __init__(self, text: str) -> None:
        self.text = text

    def open(self, policy, prompts, copies):
        conversation = InProcessSampler().open(policy, prompts, copies)
        sample = conversation.reply

        def reply(*args):
            conversation.policy = _Dictating(policy, policy.chat.encode_text(self.text))
            yield from sample(*args)
            conversation.policy, conversation.reply = policy, sample

        conversation.reply = reply
        return conversation


class _Dictating:
    def __init__(self, policy, ids):
        self.policy, self.ids = policy, iter(ids)

    def __getattr__(self, name):
        return getattr(self.policy, name)

    def logits(self, hidden):
        logits = self.policy.logits(hidden)
        if (dictated := next(self.ids, None)) is not None:
            only = torch.full_like(logits[::2], -torch.inf)
            only[:, dictated] = 0.0
            logits[::2] = only
        return logits


@pytest.fixture(scope="module")
def trajectories(family, policy):
    """Three turns of three questions with images of different sizes; half of the rows name a good box."""
    samples = [(make_question(image, f"q{i}"), image) for i, image in enumerate(IMAGES)]
    rows = roll_out(policy, Dictated(box_reply(family)), DIALOGUE, samples, 2, Sampling(max_new_tokens=40), (0, 0))
    assert {t.parsed_box.box is None for t in rows} == {True, False}
    assert len({len(t.turns[0].reply.ids) for t in rows}) > 1
    return rows


def all_ids(trajectory: Trajectory) -> list[int]:
    return [i for turn in trajectory.turns for i in (*turn.prompt.ids, *turn.reply.ids)]


def all_images(trajectory: Trajectory) -> list[Any]:
    return [image for turn in trajectory.turns for image in turn.prompt.images]


def plain_scores(family, policy, trajectory):
    """Log-probs of the replies from one unpadded pass through the stock model, which places and masks by itself."""
    ids = torch.tensor([all_ids(trajectory)])
    images = all_images(trajectory)
    kinds = (ids == policy.chat.image_id).int()
    if family.gemma:
        shown = dict(pixel_values=torch.stack([image.patches for image in images]), token_type_ids=kinds)
    else:
        shown = dict(pixel_values=torch.cat([image.patches for image in images]), mm_token_type_ids=kinds)
        shown |= dict(image_grid_thw=torch.tensor([image.grid for image in images]))
    policy.model.model.rope_deltas = None
    logits = policy.model(input_ids=ids, use_cache=False, **shown).logits.masked_fill(policy.banned, -torch.inf)
    logprobs = F.log_softmax(logits[0, :-1], -1).gather(-1, ids[0, 1:, None])[:, 0]
    return of_replies(logprobs, trajectory)


def test_positions_equal_the_librarys_over_all_turns(family, policy, trajectories):
    for trajectory in trajectories:
        ids, at, pieces = torch.tensor([all_ids(trajectory)]), 0, []
        for turn in trajectory.turns:
            for piece in (turn.prompt, Prompt(turn.reply.ids)):
                placed, at = policy.positions(piece, at)
                pieces.append(placed)
        if family.gemma:
            expected = torch.arange(ids.shape[1]).expand(3, -1)
        else:
            grid = torch.tensor([image.grid for image in all_images(trajectory)])
            kinds = (ids == policy.chat.image_id).int()
            expected = policy.model.model.get_rope_index(input_ids=ids, mm_token_type_ids=kinds, image_grid_thw=grid)[
                0
            ][:, 0]
        assert torch.equal(torch.cat(pieces, 1), expected)


def test_sampler_trainer_and_stock_model_agree(family, policy, trajectories):
    batch = collate(trajectories, policy.positions, policy.pad_id)
    gaps = {"trainer": [0.0], **{f"sampler, turn {k}": [0.0] for k in (1, 2, 3)}}
    with torch.no_grad():
        trained = score(policy, batch).logprobs_NC
        for row, trajectory in enumerate(trajectories):
            plain = plain_scores(family, policy, trajectory)
            chosen = batch.policy_NC[row]
            gaps["trainer"].append((trained[row][chosen] - plain).abs().max().item())
            for k, turn in enumerate(trajectory.turns):
                if k or trajectory.parsed_box.box is None:
                    own = plain[batch.turn_NC[row][chosen] == k]
                    gap = (own - torch.tensor(turn.reply.logprobs)).abs().max().item()
                    gaps[f"sampler, turn {k + 1}"].append(gap)
    assert max(map(max, gaps.values())) < 1e-4, gaps


def test_shared_prefixes_give_the_gradients_of_plain_rows(family, policy, trajectories):
    batch = collate(trajectories, policy.positions, policy.pad_id)
    weights = torch.randn(batch.ids_NC.shape, generator=torch.Generator().manual_seed(0))
    policy.zero_grad()
    (score(policy, batch).logprobs_NC * weights).sum().backward()
    shared = {name: p.grad.clone() for name, p in policy.named_parameters() if p.grad is not None}
    policy.zero_grad()
    for row, trajectory in enumerate(trajectories):
        (plain_scores(family, policy, trajectory) * weights[row][batch.policy_NC[row]]).sum().backward()
    assert shared.keys() == {name for name, p in policy.named_parameters() if p.grad is not None}
    assert any("vis" in name for name in shared)
    for name, p in policy.named_parameters():
        if p.grad is not None:
            assert (shared[name] - p.grad).abs().max() <= 1e-3 * (p.grad.abs().max() + 1e-3), name
    policy.zero_grad()


def test_a_frozen_copy_and_the_base_under_adapters_score_alike(family, family_folder, policy, trajectories):
    """The two references of a KL penalty: they come to the same numbers, and stand on their own."""
    batch = collate(trajectories, policy.positions, policy.pad_id)
    frozen = copy.deepcopy(policy)
    adapted = type(policy)(str(family_folder), lora=Lora(rank=2), **family.caps).load().eval()
    with torch.no_grad():
        expected = score(policy, batch).logprobs_NC
        assert torch.allclose(score(frozen, batch).logprobs_NC, expected, atol=1e-5)
        for name, parameter in adapted.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=0.5)
        assert not torch.allclose(score(adapted, batch).logprobs_NC, expected, atol=1e-2)
        with adapted.reference():
            assert torch.allclose(score(adapted, batch).logprobs_NC, expected, atol=1e-5)


@pytest.mark.parametrize("turn", [0, 1])
def test_another_image_changes_the_logprobs_behind_it(policy, trajectories, turn):
    """Not blind in the training pass, to the picture of turn 1 and to the crop of turn 2."""
    trajectory = next(t for t in trajectories if t.parsed_box.box)
    shown = trajectory.turns[turn]
    other = policy.pixels(trajectory.views[turn].pixels(noise_image(*trajectory.image.size, 9)))
    turns = list(trajectory.turns)
    turns[turn] = Turn(Prompt(shown.prompt.ids, (other,)), shown.reply, shown.text)
    changed = replace(trajectory, turns=turns)
    with torch.no_grad():
        batches = [collate([t], policy.positions, policy.pad_id) for t in (trajectory, changed)]
        before, after = (score(policy, b).logprobs_NC[b.policy_NC] for b in batches)
    first = len(trajectory.turns[0].reply.ids) if turn else 0
    assert torch.allclose(before[:first], after[:first], atol=1e-6)
    assert (before[first:] - after[first:]).abs().max() > 1e-3


def test_control_and_vision_tokens_are_never_sampled(policy, trajectories):
    banned = set(policy.banned.nonzero().flatten().tolist())
    names = {policy.slot, policy.image_token, *policy.marks} - {policy.chat.end}
    assert {policy.tokenizer.convert_tokens_to_ids(name) for name in names} <= banned
    assert policy.pad_id in banned and policy.chat.end_id not in banned
    assert len(policy.tokenizer) in banned  # the embedding has more rows
    assert not banned & set(policy.chat.encode_text("<think>\n\n\nIt is {1}.</think>"))
    for trajectory in trajectories:
        assert not any(banned & set(turn.reply.ids) for turn in trajectory.turns)
