"""Every check catches the mistake that it is there for."""

from dataclasses import replace

import pytest
import torch
from PIL import ImageChops, ImageOps

import mgpo.policy.passes.batch
import mgpo.rollout.episodes
import mgpo.rollout.in_process
from mgpo.dialogues import TwoTurn
from mgpo.images.views import Frame, View
from mgpo.objective import Objective
from mgpo.policy.families.qwen_pixels import PixelBudget
from mgpo.policy.lora import Lora
from mgpo.rollout.in_process import InProcessSampler, Sampling
from mgpo.tools.doctor.examine import CHECKS, memory
from mgpo.types import Prompt, Reply, Turn
from tests.conftest import make_policy
from tests.helpers.cases import RULE, case_of, failures


def linear_positions(policy, monkeypatch):
    def place(prompt, start):
        end = start + len(prompt.ids)
        return torch.arange(start, end).expand(3, -1), end

    monkeypatch.setattr(policy, "positions", place)


def wrong_frame(policy, monkeypatch):
    monkeypatch.setattr(policy, "resolution", replace(policy.resolution, frame=Frame.THOUSAND))


def shifted_view(policy, monkeypatch):
    whole = View.to_original
    monkeypatch.setattr(View, "to_original", lambda view, box: tuple(x + 40 for x in whole(view, box)))


def mirrored_pictures(policy, monkeypatch):
    pixels = View.pixels
    monkeypatch.setattr(View, "pixels", lambda view, original: ImageOps.mirror(pixels(view, original)))


def encoded_again(policy, monkeypatch):
    def turn(prompt, reply, text, **options):
        ids = tuple(policy.chat.encode_text(text))
        return Turn(prompt, Reply(ids, (0.0,) * len(ids), reply.stop), text, **options)

    monkeypatch.setattr(mgpo.rollout.episodes, "Turn", turn)


def other_prompt(policy, monkeypatch):
    """What the trainer would read in turn 2 is not what the sampler was shown."""

    def turn(prompt, *rest, **options):
        return Turn(Prompt((*prompt.ids, prompt.ids[-1]), prompt.images), *rest, **options)

    monkeypatch.setattr(mgpo.rollout.episodes, "Turn", turn)


def rows_changed(change):
    def plant(policy, monkeypatch):
        continuation = mgpo.policy.passes.batch._continuation

        def changed(*args):
            row = continuation(*args)
            change(row, policy)
            return row

        monkeypatch.setattr(mgpo.policy.passes.batch, "_continuation", changed)

    return plant


def mask_off_by_one(row, policy):
    row.policy = row.policy.roll(1)


def end_of_turn_in_the_mask(row, policy):
    row.policy = row.policy | (row.ids == policy.chat.end_id)


def missing_feature(policy, monkeypatch):
    """A feature is lost, and whoever counts them puts another in its place."""
    features, embed = policy.features, policy.embed

    def filled(ids, given, counted=False):
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
    choose = mgpo.rollout.in_process.choose

    def hot(logits, uniform, sampling):
        ids, _ = choose(logits, uniform, sampling)
        return ids, torch.log_softmax(logits, -1).gather(-1, ids[:, None]).squeeze(-1)

    monkeypatch.setattr(mgpo.rollout.in_process, "choose", hot)


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


def one_pixel_off_in(change):
    def plant(monkeypatch, x, y):
        to_original, pixels, to_pixels = View.to_original, View.pixels, Frame.to_pixels

        def moved(box):
            return (box[0] + x, box[1] + y, box[2] + x, box[3] + y)

        if change == "the map":
            monkeypatch.setattr(View, "to_original", lambda view, box: to_original(view, moved(box)))
        elif change == "the picture":
            shift = ImageChops.offset
            monkeypatch.setattr(View, "pixels", lambda view, original: shift(pixels(view, original), x, y))
        else:
            monkeypatch.setattr(Frame, "to_pixels", lambda frame, box, size: moved(to_pixels(frame, box, size)))

    return plant


@pytest.mark.parametrize("shift", [(1, 0), (0, 1), (-1, 0), (0, -1)], ids=str)
@pytest.mark.parametrize("change", ["the map", "the picture", "the frame"])
def test_a_shift_of_one_input_pixel_is_found(fresh_policy, monkeypatch, change, shift):
    one_pixel_off_in(change)(monkeypatch, *shift)
    assert CHECKS["boxes land"](case_of(fresh_policy)).passed is False


UNIT = 28 * 28
RESOLUTIONS = {"as fine as the original": (4000, 4000), "a fine crop": (40, 4000), "a coarse crop": (1000, 4)}


@pytest.mark.parametrize("frame", [Frame.PIXELS, Frame.THOUSAND])
@pytest.mark.parametrize("resolution", RESOLUTIONS)
def test_it_is_found_however_large_pictures_are_seen(fresh_policy, monkeypatch, resolution, frame):
    whole, crop = (PixelBudget(UNIT, cap * UNIT, 28) for cap in RESOLUTIONS[resolution])
    fresh_policy.resolution = replace(fresh_policy.resolution, full=whole, crop=crop, frame=frame)
    monkeypatch.setattr(type(fresh_policy), "published_frame", frame)
    fresh_policy.max_positions = None
    assert CHECKS["boxes land"](case_of(fresh_policy, sampling=Sampling(1))).passed
    one_pixel_off_in("the map")(monkeypatch, 1, 0)
    assert CHECKS["boxes land"](case_of(fresh_policy, sampling=Sampling(1))).passed is False


def test_sampler_and_trainer_agree_on_wrong_positions(fresh_policy, monkeypatch):
    """Which is why the stock model is asked."""
    linear_positions(fresh_policy, monkeypatch)
    assert failures(case_of(fresh_policy)).keys() == {"positions", "trainer = stock model"}


def test_a_picture_that_is_not_shown_is_found(fresh_policy):
    dialogue = TwoTurn(rule=RULE)
    dialogue.show_region, dialogue.show_whole = "{question}", "{reason} {question}"
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


ON_A_GPU = dict(
    model=dict(
        policy={"init_args": {}}, sampling={"max_new_tokens": 32, "top_p": 1.0}, supervised=False,
        group_size=8, mini_batches=1, micro_batch_tokens=1000, epochs=1, optimizer="torch.optim.AdamW",
        objective={"kl_weight": 0.0},
    ),
    data={"batch_size": 8},
    trainer=dict(precision="32-true", devices=1, num_nodes=1, strategy="auto", accelerator="gpu"),
)  # fmt: skip


def test_memory_is_planned_for_the_device(fresh_policy):
    assert memory(fresh_policy, TwoTurn(), ON_A_GPU, 80).passed is True
    assert memory(fresh_policy, TwoTurn(), ON_A_GPU, 0.001).passed is False
    assert memory(fresh_policy, TwoTurn(), ON_A_GPU).passed is None
    other = ON_A_GPU | {"trainer": ON_A_GPU["trainer"] | {"strategy": "deepspeed"}}
    assert "deepspeed" in memory(fresh_policy, TwoTurn(), other, 80).text
