"""Which rollouts are learnt from: groups with a signal, finished replies, the forced answers of SFT."""

import lightning as L
import torch

from mgpo.data.batches import Sample
from mgpo.objective import Objective
from mgpo.policy.passes.batch import collate
from mgpo.training.module import MGPO
from tests.conftest import make_question, noise_image
from tests.training.test_module import Noisy, equal, fit, make, watch, weights


def test_groups_without_signal_change_nothing(tokenizer, tmp_path):
    """Invariant: equal rewards, no gradient. A random policy never answers, so every reward is 0."""
    module = make(tokenizer, MGPO)
    before = weights(module)
    trainer = fit(module, tmp_path, enable_checkpointing=False)
    assert trainer.callback_metrics["train/constant_reward"] == 1
    assert equal(before, weights(module))


class Failing(Noisy):
    """The first rollout of each group can't be played to its end."""

    def roll_out(self, samples, step, copies=None):
        trajectories = super().roll_out(samples, step, copies)
        for i, trajectory in enumerate(trajectories):
            trajectory.reward = 1.0
            if i % self.group_size == 0:
                trajectory.reward, trajectory.failed = 0.0, "its file is gone"
        return trajectories


def test_rollouts_that_failed_are_in_no_curve(tokenizer, tmp_path):
    steps = watch(module := make(tokenizer, Failing))
    fit(module, tmp_path, questions=2, enable_checkpointing=False)
    assert steps[0]["reward"] == 1 and "pass@4" not in steps[0]


def test_sft_makes_as_many_updates_as_the_others(tokenizer, tmp_path):
    module = make(tokenizer, MGPO, supervised=True, mini_batches=2, epochs=3)
    assert fit(module, tmp_path, questions=4, enable_checkpointing=False).global_step == 2 * 2 * 3


def test_refilling_waits_for_groups_with_a_signal(tokenizer, tmp_path):
    """With rewards that never differ, every step takes the allowed batches and then goes on."""
    module = make(tokenizer, MGPO, constant_reward_groups="resample", resample_batches=2)
    trainer = fit(module, tmp_path, questions=8, enable_checkpointing=False)
    assert trainer.global_step == 2
    module = make(tokenizer, constant_reward_groups="resample", resample_batches=4)
    rolled = []
    take = module.pool.take
    module.pool.take = lambda wanted: rolled.append(take(wanted)) or rolled[-1]
    trainer = fit(module, tmp_path, questions=8, enable_checkpointing=False)
    assert 1 <= trainer.global_step <= 4
    assert all(len(groups.rewards_BG) == 2 for groups in rolled)


def test_dropping_silent_groups_leaves_the_others_their_weight(tokenizer, tmp_path):
    """One of two groups has a constant reward: kept, it halves the update; dropped, the update is that of the other."""

    class Half(Noisy):
        def roll_out(self, samples, step, copies=None):
            trajectories = super().roll_out(samples, step, copies)
            for i, trajectory in enumerate(trajectories):
                trajectory.reward = float(i % 2 if i < self.group_size else 0)
            return trajectories

    moved = {}
    for mode in ("keep", "drop"):
        module = make(
            tokenizer, Half, constant_reward_groups=mode, optimizer=lambda p: torch.optim.SGD(p, lr=0.1),
            max_grad_norm=1e9, objective=Objective(normalisation="sequence"),
        )  # fmt: skip
        before = weights(module)
        fit(module, tmp_path, questions=2, enable_checkpointing=False)
        moved[mode] = {name: value - before[name] for name, value in weights(module).items()}
    for name, move in moved["keep"].items():
        assert torch.allclose(2 * move, moved["drop"][name], rtol=1e-3, atol=1e-6), name


def test_sft_learns_the_forced_answer_alone(tokenizer, tmp_path):
    module = make(tokenizer, MGPO, supervised=True)
    parts = []
    module.loss = lambda part: parts.append(part) or MGPO.loss(module, part)
    trainer = fit(module, tmp_path, questions=4, enable_checkpointing=False)
    assert trainer.global_step == 2
    for part in parts:
        batch = collate(part.trajectories, module.policy.positions, module.policy.pad_id)
        for row in range(len(batch.ids_NC)):
            text = module.policy.chat.decode(batch.ids_NC[row][batch.policy_NC[row]].tolist())
            assert text.startswith("\\boxed{") and text.endswith("}")
            assert set(batch.turn_NC[row][batch.policy_NC[row]].tolist()) == {1}
    assert trainer.callback_metrics["train/nll"] > 0


def test_sft_lowers_the_loss_of_what_it_forces(tokenizer, tmp_path):
    module = make(tokenizer, MGPO, supervised=True, optimizer=lambda p: torch.optim.AdamW(p, lr=3e-3))
    steps = watch(module)
    fit(module, tmp_path, questions=24, enable_checkpointing=False)
    losses = [step["nll"] for step in steps]
    assert sum(losses[-3:]) < 0.7 * sum(losses[:3])


class Mute(Noisy):
    """No rollout comes to an answer before it is cut off."""

    def roll_out(self, samples, step, copies=None):
        trajectories = super().roll_out(samples, step, copies)
        for trajectory in trajectories:
            trajectory.answer = None
        return trajectories


def test_unfinished_rollouts_can_be_kept_out(tokenizer, tmp_path):
    """Rewards differ, but with `mask` no trajectory is left to learn from."""
    module = make(tokenizer, Mute, unfinished="mask")
    before = weights(module)
    trainer = fit(module, tmp_path, enable_checkpointing=False)
    assert trainer.callback_metrics["train/unfinished"] == 1
    assert equal(before, weights(module))


def test_undecodable_samples_are_left_out(tokenizer):
    module = make(tokenizer)
    said = []
    module.print = said.append
    question = make_question(None, "broken")
    bad = Sample(question, None, "broken.png: the image is damaged")
    assert module.usable([bad, bad]) == []
    assert said == ["left out: question broken, broken.png: the image is damaged"]


def test_what_another_rank_can_t_match_is_left_out_and_named(tokenizer, monkeypatch):
    module, said = make(tokenizer), []
    module.print = said.append
    module.trainer = L.Trainer(accelerator="cpu", logger=False, enable_checkpointing=False)
    monkeypatch.setattr("mgpo.training.rollouts.share_objects", lambda count, world_size: [1, count])
    samples = [Sample(make_question(image := noise_image(56, 56), name), image) for name in ("a", "b")]
    assert [question.id for question, *_ in module.playable(samples)] == ["a"]
    assert said == ["left out: question b, another rank has one less that can be played"]
