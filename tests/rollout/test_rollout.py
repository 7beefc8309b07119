"""The loop and the training pass: invariants 1, 2, 6, 7 and 9 of the design, on random weights."""

from dataclasses import replace

import pytest
import torch
from torch.nn import functional as F

from mgpo.dialogues import BlindAnswer, FreeTurns, TwoTurn
from mgpo.policy.passes.batch import collate
from mgpo.policy.passes.logprobs import score
from mgpo.rollout.episodes import roll_out
from mgpo.rollout.in_process import InProcessSampler, Sampling
from mgpo.types import Message, Prompt, Reply, Turn, conversations
from tests.conftest import noise_image

BOX = '```json\n[{"bbox_2d": [0, 0, 56, 56], "label": "red mark"}]\n```'


class Scripted:
    """A sampler that samples with the policy, but forces turn 1 of some rows to a given box."""

    exact = True

    def __init__(self, every: int = 2, text: str = BOX) -> None:
        self.every, self.text = every, text

    def open(self, policy, prompts, copies):
        conversation = InProcessSampler().open(policy, prompts, copies)
        sample, turn = conversation.reply, [0]

        def reply(seeds, sampling, stop_text=None):
            turn[0] += 1
            for row, said in sorted(dict(sample(seeds, sampling, stop_text)).items()):
                forced = turn[0] == 1 and row % self.every == 0
                yield row, force(policy, conversation, row, said, self.text) if forced else said

        conversation.reply = reply
        return conversation


def force(policy, conversation, row, reply, text):
    """Rewrite a row's first reply: its cache columns are masked and the forced ids wait to be shown."""
    conversation.keep(range(len(conversation.order)))
    ids = tuple(policy.chat.encode_text(text))
    cache, fed = conversation.cache, len(reply.ids) - 1
    new = cache.valid_NS[row, : cache.columns].nonzero().flatten()[-fed:] if fed else []
    cache.valid_NS[row, new] = False
    conversation.next_N[row] -= fed
    conversation.pending[row] = ids
    return Reply(ids, (0.0,) * len(ids), "marker")


@pytest.fixture(scope="module")
def trajectories(policy, samples):
    return roll_out(policy, Scripted(), TwoTurn(), samples, 4, Sampling(max_new_tokens=12), (0, 0))


class Changing(TwoTurn):
    """Three turns of which some begin anew: behind a box the answer, behind none the second look."""

    def __init__(self):
        super().__init__(turns=3)

    def proceed(self, trajectory, resolution):
        messages = super().proceed(trajectory, resolution)
        fresh = (trajectory.turns[-1].action == "look") == (len(trajectory.turns) == 2)
        return [Message("system", (self.system,)), *messages] if messages is not None and fresh else messages


DIALOGUES = {
    "two": TwoTurn(), "three": TwoTurn(turns=3), "free": FreeTurns(3), "blind": BlindAnswer(), "changing": Changing()
}  # fmt: skip


@pytest.fixture(scope="module", params=DIALOGUES.values(), ids=list(DIALOGUES))
def all_kinds(request, policy, samples):
    """Rollouts of a dialogue, of different numbers of turns and images."""
    return roll_out(policy, Scripted(), request.param, samples, 4, Sampling(max_new_tokens=12), (0, 0))


def full_ids(trajectory):
    return [i for turn in trajectory.turns for i in (*turn.prompt.ids, *turn.reply.ids)]


def of_replies(logprobs, trajectory):
    """Those of the sampled tokens, from those of a whole row without its first token."""
    at, values = 0, []
    for turn in trajectory.turns:
        at += len(turn.prompt.ids)
        values.append(logprobs[at - 1 : at - 1 + len(turn.reply.ids)])
        at += len(turn.reply.ids)
    return torch.cat(values)


def alone(trajectory):
    """Each conversation of a trajectory as one of its own."""
    return [replace(trajectory, turns=turns) for turns in conversations(trajectory.turns)]


def plain_scores(policy, trajectory):
    """Log-probs of a trajectory's replies from an unpadded pass a conversation through the stock model, mRoPE by the
    library."""
    return torch.cat([plain_conversation(policy, one) for one in alone(trajectory)])


def plain_conversation(policy, trajectory):
    ids = torch.tensor([full_ids(trajectory)])
    images = [image for turn in trajectory.turns for image in turn.prompt.images]
    shown = {}
    if images:
        shown["pixel_values"] = torch.cat([image.patches for image in images])
        shown["image_grid_thw"] = torch.tensor([image.grid for image in images])
    kinds = (ids == policy.chat.image_id).int()
    policy.model.model.rope_deltas = None
    output = policy.model(input_ids=ids, mm_token_type_ids=kinds, use_cache=False, **shown)
    logits = output.logits.masked_fill(policy.banned, -torch.inf)
    logprobs = F.log_softmax(logits[0, :-1], -1).gather(-1, ids[0, 1:, None])[:, 0]
    return of_replies(logprobs, trajectory)


def test_both_kinds_of_second_turn_occur(trajectories):
    assert {t.parsed_box.box is None for t in trajectories} == {True, False}
    assert all(len(t.turns) == 2 for t in trajectories)


def test_ids_in_the_loss_are_those_sampled(policy, all_kinds):
    trajectories = all_kinds
    batch = collate(trajectories, policy.positions, policy.pad_id)
    for row, trajectory in enumerate(trajectories):
        sampled = [i for turn in trajectory.turns for i in turn.reply.ids]
        assert batch.ids_NC[row][batch.policy_NC[row]].tolist() == sampled
        prefix = batch.prefix_ids_BP[batch.owner_N[row]][batch.prefix_valid_BP[batch.owner_N[row]]].tolist()
        assert prefix + batch.ids_NC[row][batch.valid_NC[row]].tolist() == full_ids(trajectory)


def test_placeholders_equal_features_in_every_turn(policy, trajectories):
    for trajectory in trajectories:
        for turn in trajectory.turns:
            tokens = sum(len(image.patches) // 4 for image in turn.prompt.images)
            assert turn.prompt.ids.count(policy.chat.image_id) == tokens > 0


def test_no_pass_is_over_rows_that_have_ended(policy, samples, monkeypatch):
    """Of every reply the model sees all tokens but the last, one row and token at a time; of a group one prompt."""
    passed: list[tuple[int, int]] = []
    decode = policy.decode

    def counted(ids, *rest):
        passed.append(tuple(ids.shape))
        return decode(ids, *rest)

    monkeypatch.setattr(policy, "decode", counted)
    rolled = roll_out(policy, InProcessSampler(), TwoTurn(), samples, 4, Sampling(max_new_tokens=12), (0, 3))
    replies = [turn.reply.ids for t in rolled for turn in t.turns]
    assert len({len(ids) for ids in replies}) > 2
    assert sum(rows for rows, width in passed if width == 1) == sum(len(ids) - 1 for ids in replies)
    assert [rows for rows, width in passed if width > 1] == [len(samples), len(rolled)]


def test_free_turns_differ_in_turns_and_images(policy, samples):
    rolled = roll_out(policy, Scripted(), FreeTurns(3), samples, 4, Sampling(max_new_tokens=12), (0, 0))
    assert {len(t.crops) for t in rolled} == {0, 1}
    assert {len(turn.prompt.images) for t in rolled for turn in t.turns[1:]} == {0, 1}


def test_a_missing_feature_is_an_error(policy, trajectories):
    ids = torch.tensor([trajectories[0].turns[0].prompt.ids])
    features = policy.features(trajectories[0].turns[0].prompt.images)
    with pytest.raises(ValueError, match="placeholders"):
        policy.embed(ids, features[:-1])


def test_so_it_is_in_the_pass_that_learns(policy, trajectories, monkeypatch):
    batch, features = collate(trajectories, policy.positions, policy.pad_id), policy.features
    for found in (lambda images: features(images)[:-1], lambda images: features([*images, images[0]])):
        monkeypatch.setattr(policy, "features", found)
        with pytest.raises(ValueError, match="placeholders"):
            score(policy, batch)


def test_sampler_and_trainer_agree_in_every_turn(policy, all_kinds):
    """Against the stock model's own forward and its own mRoPE positions, on one row at a time."""
    trajectories = all_kinds
    batch = collate(trajectories, policy.positions, policy.pad_id)
    with torch.no_grad():
        trained = score(policy, batch).logprobs_NC
        for row, trajectory in enumerate(trajectories):
            plain = plain_scores(policy, trajectory)
            ours = trained[row][batch.policy_NC[row]]
            assert torch.allclose(ours, plain, atol=1e-4)
            for k, turn in enumerate(trajectory.turns):
                if turn.reply.stop != "marker":
                    mine = ours[batch.turn_NC[row][batch.policy_NC[row]] == k]
                    assert torch.allclose(mine, torch.tensor(turn.reply.logprobs), atol=1e-4)


def test_shared_prefixes_give_the_gradients_of_plain_rows(fresh_policy, all_kinds):
    policy, trajectories = fresh_policy, all_kinds
    batch = collate(trajectories, policy.positions, policy.pad_id)
    weights = torch.randn(batch.ids_NC.shape, generator=torch.Generator().manual_seed(0))
    (score(policy, batch).logprobs_NC * weights).sum().backward()
    shared = {name: p.grad.clone() for name, p in policy.named_parameters() if p.grad is not None}
    policy.zero_grad()
    for row, trajectory in enumerate(trajectories):
        (plain_scores(policy, trajectory) * weights[row][batch.policy_NC[row]]).sum().backward()
    assert shared.keys() == {name for name, p in policy.named_parameters() if p.grad is not None}
    for name, p in policy.named_parameters():
        scale = p.grad.abs().max() + 1e-3
        assert (shared[name] - p.grad).abs().max() / scale < 1e-3, name


def test_the_image_matters(policy, samples, trajectories):
    """Not blind: other pixels in turn 2 move the log-probs of turn 2 and leave those of turn 1."""
    trajectory = next(t for t in trajectories if t.parsed_box.box)
    second = trajectory.turns[1]
    other = policy.pixels(trajectory.views[1].pixels(noise_image(448, 448, 9)))
    swapped = Turn(Prompt(second.prompt.ids, (other,)), second.reply, second.text)
    changed = type(trajectory)(trajectory.question, trajectory.image, [trajectory.turns[0], swapped])
    with torch.no_grad():
        before, after = plain_scores(policy, trajectory), plain_scores(policy, changed)
    first = len(trajectory.turns[0].reply.ids)
    assert torch.allclose(before[:first], after[:first], atol=1e-6)
    assert (before[first:] - after[first:]).abs().max() > 1e-3


def test_control_and_vision_tokens_are_never_sampled(policy, trajectories):
    banned = set(policy.banned.nonzero().flatten().tolist())
    assert {policy.chat.image_id, policy.chat.ids["<|im_start|>"]} <= banned
    assert policy.chat.end_id not in banned
    for trajectory in trajectories:
        for turn in trajectory.turns:
            assert not banned & set(turn.reply.ids)


def test_an_end_token_that_was_not_sampled_is_shown_but_not_trained(policy, trajectories):
    batch = collate(trajectories, policy.positions, policy.pad_id)
    for row, trajectory in enumerate(trajectories):
        if trajectory.turns[0].reply.ids[-1] != policy.chat.end_id:
            assert trajectory.turns[1].prompt.ids[0] == policy.chat.end_id
            place = 1 + len(trajectory.turns[0].reply.ids)
            assert batch.ids_NC[row, place] == policy.chat.end_id
            assert not batch.policy_NC[row, place]
