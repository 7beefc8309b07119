"""Conversations that begin anew within an episode: nothing before the start is seen behind it, in any pass."""

from dataclasses import replace

import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint

from mgpo.dialogues import BlindAnswer, TwoTurn
from mgpo.evaluation.evidence import look_margins
from mgpo.images.boxes import BoxRule
from mgpo.monitoring.image_reliance import image_reliance
from mgpo.objective import Objective
from mgpo.policy.passes.batch import collate
from mgpo.policy.passes.logprobs import score
from mgpo.rollout.episodes import ANSWER_FORM, force_answers, roll_out
from mgpo.rollout.fitting import too_long
from mgpo.rollout.in_process import Sampling
from mgpo.rollout.replay import play_again
from mgpo.training.loss import rescore
from mgpo.types import Prompt, Reply, SavedRollout
from tests.conftest import make_policy, make_question, noise_image
from tests.policy.test_family_logprobs import Dictated, box_reply, plain_scores
from tests.rollout.test_rollout import Changing, Scripted, alone, full_ids
from tests.training.test_module import equal, fit, make, weights

IMAGES = [noise_image(448, 448, 1), noise_image(640, 320, 2)]
SAMPLES = [(make_question(image, f"q{i}"), image) for i, image in enumerate(IMAGES)]
BLIND = BlindAnswer(rule=BoxRule(min_side=8))


@pytest.fixture(scope="module")
def trajectories(policy):
    rows = roll_out(policy, Scripted(), BlindAnswer(), SAMPLES, 4, Sampling(max_new_tokens=12), (0, 0))
    assert {bool(t.crops) for t in rows} == {True, False}
    return rows


def scores(policy, trajectories):
    batch = collate(trajectories, policy.positions, policy.pad_id)
    return batch, score(policy, batch).logprobs_NC


def elsewhere(policy, trajectory):
    """The same episode with another first picture, and another, longer box reply."""
    first, second = trajectory.turns
    (shown,) = first.prompt.images
    other = replace(shown, patches=1 - shown.patches)
    said = tuple(policy.chat.encode_text("It is over there, I think."))
    prompt, reply = replace(first.prompt, images=(other,)), Reply(said, (0.0,) * len(said), "length")
    return replace(trajectory, turns=[replace(first, prompt=prompt, reply=reply), second])


@torch.no_grad()
def test_nothing_before_the_start_is_seen_behind_it(policy, trajectories):
    for trajectory in trajectories:
        batches = [scores(policy, [t]) for t in (trajectory, elsewhere(policy, trajectory))]
        (first, other), (before, after) = (
            [logprobs[batch.policy_NC & (batch.turn_NC == k)] for batch, logprobs in batches] for k in (0, 1)
        )
        assert torch.allclose(before, after, atol=1e-6)
        width = min(len(first), len(other))
        assert (first[:width] - other[:width]).abs().max() > 1e-3


def test_the_start_leaves_no_gradient_in_what_is_before_it(tokenizer, trajectories):
    """Of the answer alone: the pixels of the first picture have none, those of the crop have one."""
    policy, trajectory = make_policy(tokenizer), next(t for t in trajectories if t.crops)
    shown = [image for turn in trajectory.turns for image in turn.prompt.images]
    images = [replace(image, patches=image.patches.clone().requires_grad_()) for image in shown]
    turns = [replace(t, prompt=replace(t.prompt, images=(i,))) for t, i in zip(trajectory.turns, images)]
    batch, logprobs = scores(policy, [replace(trajectory, turns=turns)])
    logprobs[batch.policy_NC & (batch.turn_NC == 1)].sum().backward()
    before, crop = (image.patches.grad for image in images)
    assert before is None or not before.any()
    assert crop.any()


@pytest.mark.parametrize("dialogue", [BlindAnswer(), Changing()], ids=["blind", "changing"])
def test_packed_rows_are_those_of_plain_passes_in_double_precision(tokenizer, dialogue):
    """Values and gradients against each conversation on its own, an unpacked pass each."""
    policy = make_policy(tokenizer)
    rows = roll_out(policy, Scripted(), dialogue, SAMPLES, 3, Sampling(max_new_tokens=8), (0, 0))
    policy.double()
    batch, logprobs = scores(policy, rows)
    mask = torch.randn(batch.ids_NC.shape, generator=torch.Generator().manual_seed(0), dtype=torch.double)
    (logprobs * mask).sum().backward()
    ours = {name: p.grad.clone() for name, p in policy.named_parameters()}
    policy.zero_grad()
    for row, trajectory in enumerate(rows):
        values = []
        for one in alone(trajectory):
            own, scored = scores(policy, [one])
            values.append(scored[own.policy_NC])
        plain = torch.cat(values)
        assert (plain - logprobs[row][batch.policy_NC[row]]).abs().max() < 1e-5  # scores are kept in float32
        (plain * mask[row][batch.policy_NC[row]]).sum().backward()
    for name, p in policy.named_parameters():
        assert (ours[name] - p.grad).abs().max() <= 1e-5 * (p.grad.abs().max() + 1e-3), name


def test_every_family_starts_anew_in_sampler_and_trainer(family, family_policy):
    """Packed or not, with keys and values or with states: as the stock model scores each conversation."""
    policy = family_policy
    rows = roll_out(policy, Dictated(box_reply(family)), BLIND, SAMPLES, 2, Sampling(max_new_tokens=40), (0, 0))
    assert {bool(t.crops) for t in rows} == {True, False}
    with torch.no_grad():
        batch, trained = scores(policy, rows)
        for row, trajectory in enumerate(rows):
            ours, turns = trained[row][batch.policy_NC[row]], batch.turn_NC[row][batch.policy_NC[row]]
            sampled = torch.tensor(trajectory.turns[1].reply.logprobs)
            assert torch.allclose(ours[turns == 1], sampled, atol=1e-4)
            if trajectory.crops:
                plain = torch.cat([plain_scores(family, policy, one) for one in alone(trajectory)])
                assert torch.allclose(ours, plain, atol=1e-4)


def test_a_seed_gives_the_same_rollouts_whatever_the_batch(policy, trajectories):
    turned = roll_out(policy, Scripted(), BlindAnswer(), SAMPLES[::-1], 4, Sampling(max_new_tokens=12), (0, 0))
    assert [full_ids(t) for t in turned[4:] + turned[:4]] == [full_ids(t) for t in trajectories]


@pytest.mark.parametrize("dialogue", [BlindAnswer(), Changing()], ids=["blind", "changing"])
def test_rollouts_are_played_again(policy, dialogue):
    rows = roll_out(policy, Scripted(), dialogue, SAMPLES, 3, Sampling(max_new_tokens=12), (0, 0))
    saved = [
        SavedRollout(
            tuple(turn.reply.ids for turn in t.turns), tuple(turn.reply.stop for turn in t.turns),
            t.turns[0].prompt.hash,
        )
        for t in rows
    ]  # fmt: skip
    samples = [(replace(t.question, imitated=rollout), t.image) for t, rollout in zip(rows, saved)]
    again = play_again(policy, dialogue, samples, lambda *_: 1.0, Sampling(99))
    assert [t.failed for t in again] == [None] * len(rows)
    assert [full_ids(t) for t in again] == [full_ids(t) for t in rows]


def test_what_is_before_the_start_takes_no_room(policy, trajectories, monkeypatch):
    first, second = trajectories[0].turns
    longest = max(len(first.prompt.ids), len(second.prompt.ids))
    monkeypatch.setattr(policy, "max_prompt_tokens", longest, raising=False)
    assert too_long(policy, [first], second.prompt, 8) is None
    assert "before reply 2" in str(too_long(policy, [first], replace(second.prompt, fresh=False), 8))
    assert "before reply 3" in str(too_long(policy, [first, second], Prompt((1,) * longest), 8))
    monkeypatch.setattr(policy, "max_positions", longest + 8)
    assert too_long(policy, [first], second.prompt, 8) is None


def test_the_forced_answer_is_behind_the_start(policy, trajectories):
    copies = [replace(t, turns=[replace(turn) for turn in t.turns]) for t in trajectories]
    force_answers(policy, copies, ANSWER_FORM)
    with torch.no_grad():
        batch, together = scores(policy, copies)
        apart = [scores(policy, [alone(t)[1]])[1].sum() for t in copies]
    assert torch.allclose(together.sum(1), torch.stack(apart), atol=1e-4)
    assert (batch.turn_NC[batch.policy_NC] == 1).all()


def test_what_the_crop_is_worth_is_told_of_the_start_alone(policy, trajectories):
    """Margins and reliance, with the first picture and the box reply as they are and with others."""
    others = [elsewhere(policy, t) for t in trajectories]
    margins = look_margins(policy, trajectories, ANSWER_FORM)
    for of, other in zip(margins, look_margins(policy, others, ANSWER_FORM), strict=True):
        assert of == pytest.approx(other, abs=1e-4)
    assert [any(of) for of in margins] == [bool(t.crops) for t in trajectories]
    assert image_reliance(policy, trajectories) == pytest.approx(image_reliance(policy, others), abs=1e-4)


def test_rescoring_gives_every_turn_its_own(policy, trajectories):
    copies = [replace(t, turns=[replace(turn) for turn in t.turns]) for t in trajectories]
    gaps = rescore(policy, copies, [range(4), range(4, 8)], Objective(), 1.0)
    free = [t for t in copies if t.turns[0].reply.stop != "marker"]
    for turn in (turn for t in free for turn in t.turns):
        assert turn.scored == pytest.approx(turn.reply.logprobs, abs=1e-4)
    assert gaps.sums["engine_gap"][0] >= 0


def test_a_dialogue_that_goes_on_has_one_conversation(policy):
    rows = roll_out(policy, Scripted(), TwoTurn(), SAMPLES, 2, Sampling(max_new_tokens=8), (0, 0))
    assert all(len(alone(t)) == 1 for t in rows)
    batch = collate(rows, policy.positions, policy.pad_id)
    assert not batch.conversation_NC.any() and not batch.packing.anew


@pytest.mark.parametrize("objective", [Objective(), Objective(surrogate="gspo", kl_weight=0.1)], ids=["ppo", "gspo"])
def test_resuming_changes_nothing(tokenizer, tmp_path, objective):
    """Three steps of fit, and the last of them again from a checkpoint: bit for bit."""
    whole, again = (make(tokenizer, dialogue=BLIND, objective=objective) for _ in range(2))
    before = weights(whole)
    saver = ModelCheckpoint(tmp_path, filename="{step}", every_n_train_steps=2, save_top_k=-1)
    fit(whole, tmp_path, questions=6, callbacks=[saver])
    assert not equal(before, weights(whole))
    fit(again, tmp_path, questions=6, ckpt_path=str(tmp_path / "step=2.ckpt"), enable_checkpointing=False)
    assert equal(weights(whole), weights(again))


def test_micro_batches_change_memory_only(tokenizer, tmp_path):
    modules = [
        make(tokenizer, dialogue=BLIND, micro_batch_tokens=tokens, optimizer=lambda p: torch.optim.SGD(p, lr=1.0))
        for tokens in (16384, 200)
    ]
    before = weights(modules[0])
    for module in modules:
        fit(module, tmp_path, questions=2, enable_checkpointing=False)
    one, several = map(weights, modules)
    assert not equal(before, one)
    for name, p in one.items():
        assert torch.allclose(p, several[name], atol=1e-5), name
