"""Alarms: silent on healthy curves, once on sick ones, ready again after recovery. None of it touches training."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mgpo.callbacks import EarlyWarning
from mgpo.data.scenes import Scenes
from mgpo.errors import UserError
from mgpo.monitoring.alarms import RULES, Alarms, Limits
from mgpo.monitoring.curves import Curve
from mgpo.monitoring.image_reliance import blank, image_reliance
from mgpo.policy.passes.batch import collate
from mgpo.policy.passes.logprobs import score
from mgpo.types import Prompt
from tests.training.test_module import MGPO, equal, fit, make, weights

HEALTHY = {
    "reward": 0.4, "accuracy": 0.4, "valid_box_ratio": 0.4, "constant_reward": 0.2, "cut": 0.0, "image_reliance": 0.7,
    "entropy_turn1": 0.5, "entropy_turn2": 0.4, "length_turn1": 11.0, "length_turn2": 4.0, "grad_norm": 0.6,
    "engine_gap": 0.008, "audit_margin": 3.0,
}  # fmt: skip


def sounded(*stretches, limits=Limits()):
    """(kind, step) of what is said about stretches of (steps, metrics that differ from healthy ones)."""
    alarms, heard, step = Alarms(limits), [], 0
    for steps, changed in stretches:
        for _ in range(steps):
            step += 1
            heard += [(alarm.kind, step) for alarm in alarms.step(step, HEALTHY | changed)]
    return heard


SICK = {
    "reward_collapse": {"reward": 0.1},
    "entropy_collapse": {"entropy_turn2": 0.004},
    "grounding_lost": {"valid_box_ratio": 0.1},
    "length_blow_up": {"length_turn2": 40.0},
    "constant_reward": {"constant_reward": 1.0},
    "image_blind": {"image_reliance": 0.001},
    "crop_blind": {"audit_margin": 0.02},
    "engine_apart": {"engine_gap": 1.4},
}


@pytest.mark.parametrize("kind", RULES)
def test_every_rule_says_its_own_once_and_again_after_recovery(kind):
    heard = sounded((30, {}), (30, SICK[kind]), (40, {}), (30, SICK[kind]))
    assert [name for name, _ in heard] == [kind, kind]
    assert 30 < heard[0][1] <= 60 and 100 < heard[1][1] <= 130


@pytest.mark.parametrize("name", ["window", "constant_window", "reliance_checks", "margin_checks"])
def test_a_level_of_one_value_has_no_scatter_and_is_refused(name):
    with pytest.raises(UserError, match=f"limits.{name} is 1"):
        Limits(**{name: 1})
    assert Limits(**{name: 2})


def test_the_margin_of_credit_by_turn_is_no_audit():
    """It is of every step's rollouts, whatever they look at; audits are of fixed questions."""
    assert not sounded((30, {"evidence_margin": 3.0}), (30, {"evidence_margin": 0.02}))


def test_a_policy_that_stops_looking_is_heard_though_its_few_boxes_are_good():
    heard = sounded((30, {"crop_rate": 0.9}), (30, {"crop_rate": 0.02}))
    assert [name for name, _ in heard] == ["grounding_lost"]
    assert sounded((30, {"crop_rate": 0.9}), (30, {"crop_rate": 0.5})) == []


@given(
    seed=st.integers(0, 10_000),
    ends=st.tuples(*(st.floats(low, high) for low, high in [(0.3, 0.95), (0.4, 1.0), (0.05, 0.6), (0.0, 0.8)])),
)
@settings(max_examples=40, deadline=None)
def test_noisy_learning_is_silent(seed, ends):
    """Rewards and boxes that rise or hold, entropy that falls, more and more groups without signal."""
    rng, alarms = np.random.default_rng(seed), Alarms()
    reward, valid, entropy, silent = (np.linspace(a, b, 120) for a, b in zip((0.3, 0.4, 0.6, 0.1), ends))
    for step in range(120):
        share = rng.binomial(64, np.clip(reward[step], 0, 1)) / 64
        metrics = {
            "reward": share, "accuracy": share, "valid_box_ratio": rng.binomial(64, valid[step]) / 64,
            "entropy_turn1": entropy[step] * rng.uniform(0.7, 1.3),
            "constant_reward": rng.binomial(8, silent[step]) / 8, "length_turn1": rng.normal(30, 6),
            "cut": rng.binomial(64, 0.05) / 64,
            "image_reliance": rng.uniform(0.1, 1.0),
        }  # fmt: skip
        assert alarms.step(step, metrics) == []


@given(st.lists(st.floats(-5, 5), min_size=20, max_size=60), st.floats(-3, 3))
def test_a_level_that_only_rises_never_falls(steps, start):
    values = start + np.cumsum(np.abs(steps))
    assert Curve(list(range(len(values))), values.tolist()).fall(5, 0.1) is None


def test_noise_is_no_fall_and_a_fall_beyond_it_is():
    noisy = [0.0, 1.0] * 15
    assert Curve(list(range(40)), noisy + [0.0, 0.6] * 5).fall(10, 0.3) is None
    recent, best, step = Curve(list(range(40)), [0.5] * 30 + [0.1] * 10).fall(10, 0.3)
    assert (recent, best, step) == (pytest.approx(0.1), pytest.approx(0.5), 9)


def test_a_step_without_a_number_hides_no_fall():
    """A reward of one's own may be none now and then, which costs that update and no alarm."""
    heard = sounded((5, {}), (1, {"reward": float("nan")}), (60, {}), (60, {"reward": 0.05}))
    assert [kind for kind, _ in heard] == ["reward_collapse"]


def test_certainty_is_no_fault_once_the_answers_are_right():
    assert sounded((60, {"entropy_turn1": 0.004, "accuracy": 0.95})) == []
    assert sounded((60, {"entropy_turn1": 0.004}))[0][0] == "entropy_collapse"


def test_a_steep_fall_of_entropy_counts_above_the_floor_too():
    heard = sounded((30, {"entropy_turn1": 2.0}), (30, {"entropy_turn1": 0.05}))
    assert [kind for kind, _ in heard] == ["entropy_collapse"]


def test_replies_may_grow_while_they_are_short():
    assert sounded((30, {"length_turn2": 2.0}), (30, {"length_turn2": 6.0})) == []


def test_cut_replies_are_a_blow_up_from_the_start():
    assert [kind for kind, _ in sounded((60, {"cut": 0.5}))] == ["length_blow_up"]


def test_missing_curves_and_short_histories_are_silent():
    assert sounded((9, {"reward": 0.0, "cut": 1.0, "entropy_turn1": 0.0, "constant_reward": 1.0})) == []
    alarms = Alarms()
    assert all(alarms.step(step, {"nll": 5.0}) == [] for step in range(50))


def test_what_is_said_has_numbers_and_keys_that_exist(tokenizer):
    """Every `model.…` key in a text is an argument or field of what it names."""
    module, said = make(tokenizer), {}
    for kind, changed in SICK.items():
        alarms = Alarms()
        for step in range(60):
            said |= {a.kind: a for a in alarms.step(step, HEALTHY | (changed if step >= 30 else {}))}
        assert any(character.isdigit() for character in said[kind].text) and said[kind].numbers
        for word in said[kind].text.replace(",", " ").replace(":", " ").split():
            name, _, rest = word.rstrip(".").removeprefix("model.").partition(".")
            if word.startswith("model.") and name not in ("optimizer", "policy"):
                assert hasattr(module, name), word
                assert not rest or hasattr(getattr(module, name), rest), word
    assert set(said) == set(RULES)


def roll(module, questions=2):
    source = Scenes(questions, side=128)
    return module.roll_out([(source[i], source[i].picture.load()) for i in range(questions)], 0)


def without_pictures(trajectory):
    turns = [
        replace(turn, prompt=Prompt(turn.prompt.ids, tuple(blank(turn.prompt.images)))) for turn in trajectory.turns
    ]
    return replace(trajectory, turns=turns)


def test_reliance_is_the_difference_of_two_plain_passes(tokenizer):
    """Row by row, over the last reply alone; the training mode comes back."""
    module = make(tokenizer)
    policy, gains = module.policy, []
    trajectories = roll(module)
    for t in trajectories:
        logprobs = []
        for shown in (t, without_pictures(t)):
            batch = collate([shown], policy.positions, policy.pad_id)
            with torch.no_grad():
                logprobs.append(score(policy.eval(), batch).logprobs_NC[batch.policy_NC & (batch.turn_NC == 1)])
        gains.append(logprobs[0] - logprobs[1])
    policy.train()
    expected = torch.cat(gains).mean().item()
    assert abs(expected) > 1e-4
    assert image_reliance(policy, trajectories) == pytest.approx(expected, abs=1e-5)
    assert image_reliance(policy, trajectories, micro_batch_tokens=100) == pytest.approx(expected, abs=1e-5)
    assert policy.training


def test_a_policy_that_does_not_look_relies_on_nothing(tokenizer):
    module = make(tokenizer)
    trajectories, features = roll(module), module.policy.features
    module.policy.features = lambda images: torch.zeros_like(features(images))
    assert image_reliance(module.policy, trajectories) == 0


def test_blank_pictures_keep_what_is_shared(tokenizer):
    images = [t.turns[0].prompt.images[0] for t in roll(make(tokenizer))]
    grey = blank(images)
    assert len({id(image) for image in grey}) == len({id(image) for image in images}) == 2
    assert [image.grid for image in grey] == [image.grid for image in images]
    assert not any(image.patches.any() for image in grey)


def test_watching_changes_nothing(tokenizer, tmp_path):
    """Weights and random numbers bit for bit, with a measurement after every step."""
    results = []
    for callbacks in ([], [EarlyWarning(every_n_steps=1)]):
        torch.manual_seed(5)
        module = make(tokenizer)
        trainer = fit(module, tmp_path, enable_checkpointing=False, callbacks=callbacks)
        results.append((weights(module), torch.rand(1)))
    assert equal(results[0][0], results[1][0]) and torch.equal(results[0][1], results[1][1])
    assert "train/image_reliance" in trainer.callback_metrics


def test_a_warning_is_printed_written_and_logged(tokenizer, tmp_path, capsys):
    """A random policy is never right: no group has a signal."""
    limits = Limits(window=2, constant_window=2, cut_share=1.0)
    warner = EarlyWarning(limits, every_n_steps=0)
    trainer = fit(make(tokenizer, MGPO), tmp_path, enable_checkpointing=False, callbacks=[warner])
    (path,) = tmp_path.rglob("warnings.jsonl")
    (line,) = path.read_text().splitlines()
    written = json.loads(line)
    assert (written["kind"], written["step"], written["numbers"]["constant"]) == ("constant_reward", 2, 1.0)
    assert f"warning at step 2: {written['text']}" in capsys.readouterr().out
    assert trainer.callback_metrics["warning/constant_reward"] == 1
    assert trainer.callback_metrics["warning/reward_collapse"] == 0


def test_pictures_are_measured_as_often_as_asked(tokenizer, tmp_path):
    warner = EarlyWarning(every_n_steps=2, rows=3)
    fit(make(tokenizer), tmp_path, enable_checkpointing=False, callbacks=[warner])
    assert warner.alarms.curves["image_reliance"].steps == [2, 4]


def test_a_resumed_watch_remembers(tokenizer):
    before, after = EarlyWarning(), EarlyWarning()
    for step in range(45):
        before.alarms.step(step, HEALTHY | ({"reward": 0.05} if step >= 30 else {}))
    after.load_state_dict(json.loads(json.dumps(before.state_dict())))
    assert after.alarms.curves == before.alarms.curves
    assert after.alarms.step(45, HEALTHY | {"reward": 0.05}) == []  # it has been said
    assert after.alarms.sounding == {"reward_collapse": 0}
