"""Every check passes where all is well, and catches the mistake that it is there for."""

import re
from dataclasses import replace

import lightning as L
import pytest
import torch
from PIL import ImageOps

import mgpo.policy.batch
import mgpo.rollout
import mgpo.sampler
from mgpo.boxes import BoxRule
from mgpo.cli import main
from mgpo.data.module import VQAData
from mgpo.data.scenes import Scenes
from mgpo.dialogues import FreeTurns, SingleTurn, TwoTurn
from mgpo.doctor.case import Case, Result
from mgpo.doctor.examine import CHECKS
from mgpo.doctor.memory import memory
from mgpo.doctor.preflight import Preflight, verdict
from mgpo.errors import UserError
from mgpo.objective import Objective
from mgpo.policy.lora import Lora
from mgpo.sampler import InProcessSampler, Sampling
from mgpo.shipped import shipped_config
from mgpo.types import Prompt, Reply, Turn
from mgpo.views import Frame, View
from tests.conftest import make_policy, make_question, noise_image
from tests.test_module import adam, equal, fit, make, weights

RULE = BoxRule(min_side=8)
IMAGES = [noise_image(448, 448, 1), noise_image(640, 320, 2)]
SAMPLES = [(make_question(image, f"q{i}"), image) for i, image in enumerate(IMAGES)]


def case_of(policy, dialogue=None, **changes):
    usual = dict(
        sampler=InProcessSampler(), dialogue=dialogue or TwoTurn(rule=RULE), objective=Objective(),
        sampling=Sampling(max_new_tokens=8), samples=SAMPLES[1:],
        make_optimizer=lambda: adam(p for p in policy.parameters() if p.requires_grad),
    )  # fmt: skip
    return Case(policy, **{**usual, **changes})


def failures(case, skipped=()):
    """Names and texts of all checks that fail; those that had nothing to examine have to be these."""
    results = {name: check(case) for name, check in CHECKS.items()}
    assert all(result.name == name for name, result in results.items())
    assert [name for name, result in results.items() if result.passed is None] == list(skipped)
    return {name: result.text for name, result in results.items() if result.passed is False}


def test_no_family_raises_an_alarm(family, family_policy):
    before = {name: p.clone() for name, p in family_policy.named_parameters()}
    case = case_of(family_policy, samples=SAMPLES)
    assert len(case.dictated[0].turns) == 2 and case.dictated[0].finding.box is not None
    assert failures(case) == {}
    assert all(torch.equal(p, before[name]) for name, p in family_policy.named_parameters())
    family_policy.zero_grad()


@pytest.mark.parametrize("options", [dict(lora=Lora(rank=2)), dict(freeze_vision=True)], ids=["lora", "freeze"])
def test_no_choice_of_weights_raises_an_alarm(tokenizer, options):
    assert failures(case_of(make_policy(tokenizer, **options))) == {}


@pytest.mark.parametrize("dialogue", [SingleTurn(), TwoTurn(rule=RULE, turns=3), FreeTurns(3, rule=RULE)])
def test_no_dialogue_raises_an_alarm(fresh_policy, dialogue):
    skipped = ["boxes land"] if isinstance(dialogue, SingleTurn) else []
    assert failures(case_of(fresh_policy, dialogue), skipped) == {}


def test_rounding_raises_no_alarm(fresh_policy):
    """Under autocast checks are looser, and still see wrong positions."""
    with torch.autocast("cpu", torch.bfloat16):
        case = case_of(fresh_policy)
    found = {}
    for name, check in CHECKS.items():
        with torch.autocast("cpu", torch.bfloat16):
            found[name] = check(case)
    assert [result.text for result in found.values() if not result.passed] == []
    assert "on average" in found["sampler = trainer"].text


@pytest.mark.parametrize("name", ["mgpo", "grpo", "free", "sft"])
def test_no_shipped_configuration_raises_an_alarm(name, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    main(["doctor", "--config", str(shipped_config(name)), "--data.num_workers=0"])
    said = capsys.readouterr().out
    assert said.count(" passed ") >= 10 and "FAILED" not in said
    assert list(tmp_path.iterdir()) == []


def linear_positions(policy, monkeypatch):
    def place(prompt, start):
        end = start + len(prompt.ids)
        return torch.arange(start, end).expand(3, -1), end

    monkeypatch.setattr(policy, "positions", place)


def wrong_frame(policy, monkeypatch):
    monkeypatch.setattr(policy, "sight", replace(policy.sight, frame=Frame.THOUSAND))


def shifted_view(policy, monkeypatch):
    whole = View.to_original
    monkeypatch.setattr(View, "to_original", lambda view, box: tuple(x + 40 for x in whole(view, box)))


def mirrored_pictures(policy, monkeypatch):
    pixels = View.pixels
    monkeypatch.setattr(View, "pixels", lambda view, original: ImageOps.mirror(pixels(view, original)))


def encoded_again(policy, monkeypatch):
    def turn(prompt, reply, text):
        ids = tuple(policy.chat.encode_text(text))
        return Turn(prompt, Reply(ids, (0.0,) * len(ids), reply.stop), text)

    monkeypatch.setattr(mgpo.rollout, "Turn", turn)


def other_prompt(policy, monkeypatch):
    """What the trainer would read in turn 2 is not what the sampler was shown."""
    monkeypatch.setattr(
        mgpo.rollout, "Turn", lambda prompt, *rest: Turn(Prompt((*prompt.ids, prompt.ids[-1]), prompt.images), *rest)
    )


def rows_changed(change):
    def plant(policy, monkeypatch):
        continuation = mgpo.policy.batch._continuation

        def changed(*args):
            row = continuation(*args)
            change(row, policy)
            return row

        monkeypatch.setattr(mgpo.policy.batch, "_continuation", changed)

    return plant


def mask_off_by_one(row, policy):
    row.policy = row.policy.roll(1)


def end_of_turn_in_the_mask(row, policy):
    row.policy = row.policy | (row.ids == policy.chat.end_id)


def missing_feature(policy, monkeypatch):
    """A feature is lost, and whoever counts them puts another in its place."""
    features, embed = policy.features, policy.embed

    def filled(ids, given):
        lacking = int((ids == policy.chat.image_id).sum()) - (0 if given is None else len(given))
        return embed(ids, torch.cat([given, given[-1:].expand(lacking, -1)]) if lacking else given)

    monkeypatch.setattr(policy, "features", lambda images: features(images)[:-1])
    monkeypatch.setattr(policy, "embed", filled)


def blind(policy, monkeypatch):
    features = policy.features
    monkeypatch.setattr(policy, "features", lambda images: 0 * features(images))


def blind_to_crops(policy, monkeypatch):
    """Of 10 tokens at most, where whole pictures have more."""
    tower = policy.tower
    monkeypatch.setattr(policy, "tower", lambda images: [part * (len(part) > 10) for part in tower(images)])


def forgotten_temperature(policy, monkeypatch):
    choose = mgpo.sampler.choose

    def hot(logits, uniform, sampling):
        ids, _ = choose(logits, uniform, sampling)
        return ids, torch.log_softmax(logits, -1).gather(-1, ids[:, None]).squeeze(-1)

    monkeypatch.setattr(mgpo.sampler, "choose", hot)


def detached_tower(policy, monkeypatch):
    tower = policy.tower
    monkeypatch.setattr(policy, "tower", lambda images: [part.detach() for part in tower(images)])


PLANTED = [
    (linear_positions, "positions", "other positions"),
    (linear_positions, "trainer = stock model", "nats apart"),
    (wrong_frame, "boxes land", "refused"),
    (shifted_view, "boxes land", "in the crop the mark is at"),
    (mirrored_pictures, "boxes land", "in the first view the mark is at"),
    (encoded_again, "sampled ids", "not the ids that the sampler drew"),
    (other_prompt, "sampled ids", "behind other ids"),
    (rows_changed(mask_off_by_one), "policy mask", "lacks"),
    (rows_changed(end_of_turn_in_the_mask), "policy mask", "not sampled"),
    (missing_feature, "image tokens", "image features"),
    (blind, "pictures matter", "blind"),
    (blind_to_crops, "pictures matter", "turn 2"),
    (forgotten_temperature, "sampler = trainer", "nats apart"),
    (detached_tower, "trained weights", "does not reach"),
]


@pytest.mark.parametrize(
    ("plant", "check", "words"), PLANTED, ids=[f"{plant.__name__}-{check}" for plant, check, _ in PLANTED]
)
def test_a_planted_mistake_is_found(fresh_policy, monkeypatch, plant, check, words):
    plant(fresh_policy, monkeypatch)
    result = CHECKS[check](case_of(fresh_policy, sampling=Sampling(max_new_tokens=8, temperature=0.7)))
    assert result.passed is False
    assert words in result.text


def test_sampler_and_trainer_agree_on_wrong_positions(fresh_policy, monkeypatch):
    """Which is why the stock model is asked."""
    linear_positions(fresh_policy, monkeypatch)
    assert failures(case_of(fresh_policy)).keys() == {"positions", "trainer = stock model"}


def test_a_picture_that_is_not_shown_is_found(fresh_policy):
    dialogue = TwoTurn(rule=RULE, show_region="{question}", show_whole="{reason} {question}")
    assert failures(case_of(fresh_policy, dialogue)).keys() == {"image tokens", "boxes land"}


class Engine(InProcessSampler):
    """Has a copy of the weights in another type, one would think."""

    exact = False


def test_an_engine_may_round(fresh_policy):
    result = CHECKS["sampler = trainer"](case_of(fresh_policy, sampler=Engine()))
    assert result.passed and "on average" in result.text
    nucleus = case_of(fresh_policy, sampler=Engine(), sampling=Sampling(8, top_p=0.9))
    assert CHECKS["sampler = trainer"](nucleus).passed is None


class NoBaseline(Objective):
    def advantages(self, rewards_BG, counted_BG=None):
        return rewards_BG


class Deaf(Objective):
    def advantages(self, rewards_BG, counted_BG=None):
        return 0 * rewards_BG


@pytest.mark.parametrize(("objective", "words"), [(NoBaseline(), "of equal rewards"), (Deaf(), "of unequal rewards")])
def test_a_wrong_advantage_is_found(fresh_policy, objective, words):
    found = failures(case_of(fresh_policy, objective=objective))
    assert found.keys() == {"gradients"} and words in found["gradients"]


@pytest.mark.parametrize(
    ("options", "part"), [(dict(freeze_vision=True), "visual"), (dict(lora=Lora(rank=2)), "language_model")]
)
def test_weights_that_should_stay_are_found(tokenizer, options, part):
    policy = make_policy(tokenizer, **options)
    name = next(name for name, p in policy.named_parameters() if part in name and not p.requires_grad)
    policy.get_parameter(name).requires_grad_(True)
    found = failures(case_of(policy))
    assert found.keys() == {"trained weights"} and found["trained weights"].startswith(f"{name} is trained, but")


@pytest.mark.parametrize(
    ("optimizer", "words"),
    [
        (lambda weights: torch.optim.SGD(weights[1:], lr=1.0), "0 times"),
        (lambda weights: torch.optim.SGD(weights, lr=0.0), "does not move"),
        (lambda weights: torch.optim.SGD([*weights, torch.zeros(1)], lr=1.0), "not trained"),
    ],
    ids=["missing", "still", "foreign"],
)
def test_an_optimiser_that_moves_other_weights_is_found(fresh_policy, optimizer, words):
    case = case_of(fresh_policy, make_optimizer=lambda: optimizer(list(fresh_policy.parameters())))
    found = failures(case)
    assert found.keys() == {"trained weights"} and words in found["trained weights"]


def test_replies_that_may_get_too_long_are_found(fresh_policy):
    case = case_of(fresh_policy)
    case.sampling = Sampling(max_new_tokens=3000)
    result = CHECKS["length"](case)
    assert not result.passed and "of 4,096" in result.text


def test_memory_is_planned_for_the_device(fresh_policy):
    config = dict(
        model=dict(
            policy={"init_args": {}}, sampling={"max_new_tokens": 32, "top_p": 1.0}, supervised=False,
            group_size=8, mini_batches=1, micro_batch_tokens=1000, epochs=1, optimizer="torch.optim.AdamW",
            objective={"kl_weight": 0.0},
        ),
        data={"batch_size": 8},
        trainer=dict(precision="32-true", devices=1, num_nodes=1, strategy="auto", accelerator="gpu"),
    )  # fmt: skip
    assert memory(fresh_policy, TwoTurn(), config, 80).passed is True
    assert memory(fresh_policy, TwoTurn(), config, 0.001).passed is False
    assert memory(fresh_policy, TwoTurn(), config).passed is None
    config["trainer"]["strategy"] = "deepspeed"
    assert "deepspeed" in memory(fresh_policy, TwoTurn(), config, 80).text


def test_a_fit_with_preflight_equals_one_without(tokenizer, tmp_path, capsys):
    """Weights, optimiser and random numbers, bit for bit."""
    ends = []
    for callbacks in ([], [Preflight()]):
        torch.manual_seed(3)
        module = make(tokenizer)
        trainer = fit(module, tmp_path, questions=4, callbacks=callbacks, enable_checkpointing=False)
        states = list(trainer.optimizers[0].state_dict()["state"].values())
        ends.append((weights(module), states, torch.get_rng_state()))
    (first, states, draws), (second, others, again) = ends
    assert equal(first, second)
    assert torch.equal(draws, again)
    assert len(states) == len(others)
    assert all(torch.equal(a[key], b[key]) for a, b in zip(states, others) for key in a)
    assert re.search(r"preflight: \d+ checks passed, skipped: memory", capsys.readouterr().out)


def test_a_failure_stops_a_fit_unless_it_is_to_warn(tokenizer, tmp_path, monkeypatch, capsys):
    module = make(tokenizer)
    linear_positions(module.policy, monkeypatch)
    with pytest.raises(UserError, match=r"^preflight: trainer = stock model failed \(and positions\): .*--preflight"):
        fit(module, tmp_path, questions=2, callbacks=[Preflight()], enable_checkpointing=False)
    assert module.global_step == 0
    trainer = fit(module, tmp_path, questions=2, callbacks=[Preflight("warn")], enable_checkpointing=False)
    assert trainer.global_step == 1
    assert "FAILED" in capsys.readouterr().out


def test_preflight_comes_before_an_evaluation_that_precedes_training(tokenizer, tmp_path, monkeypatch):
    module = make(tokenizer, eval_sampling=Sampling(6, 0))
    data = VQAData(Scenes(4, side=128), [Scenes(2, side=128, split="val")], num_workers=0)
    trainer = L.Trainer(
        accelerator="cpu", default_root_dir=tmp_path, logger=False, callbacks=[Preflight()], enable_progress_bar=False
    )
    trainer.validate(module, data, verbose=False)
    linear_positions(module.policy, monkeypatch)
    trainer.callbacks[0].done = False
    with pytest.raises(UserError, match="positions"):
        trainer.validate(module, data, verbose=False)


def test_the_verdict_is_one_sentence():
    said = verdict([Result("positions", False, "3 tokens stand elsewhere"), Result("length", False, "too long")])
    assert said.startswith("preflight: positions failed (and length): 3 tokens stand elsewhere; ")
    assert "\n" not in said
