"""The estimate of a step's time: against counting by hand, and against the plan of each number of devices."""

import json
from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mgpo.cli import main
from mgpo.policy.lora import Lora
from mgpo.tools.plan.launch import Devices, Launch
from mgpo.tools.plan.lengths import Said
from mgpo.tools.plan.passes import FLOAT
from mgpo.tools.plan.shape import Block, Shape, measure_shape
from mgpo.tools.plan.sizes import QWEN2_5_VL
from mgpo.tools.plan.time import H100, LINKS, Device, Shares, seconds
from mgpo.utils.configurations import shipped_config

# One operation or byte a second each, so that a time is a count over its share; nodes of 2.
UNIT = Device("unit", 1, 1, 1, 1, 1, 0.25, 2)
HERE, ENGINE = Shares(0.5, 0.25, 0.75), Shares(0.8, 0.4, 0.6)
LANGUAGE = Block(2, 4, 1, 4, 4, 8, True, 100, 100)
SHAPE = Shape(LANGUAGE, Block(1, 4, 1, 4, 4, 8, True, 50, 50), 10, 330, 50, 14, 8, 2, None, {})
# A prompt of 9 tokens, 4 of them of the image, is answered with 2; 3 more tokens with 2.
LAUNCH = Launch(
    (Said(5, wholes=1), Said(3)), whole=4, crop=4, side=28, least=1, reply=2, limit=2, questions=2, group=2,
    micro_tokens=24, mini_batches=1, epochs=1, weight=2, value=2, gradient=2, state=4, penalised=False, lora=None,
    devices=Devices(),
)  # fmt: skip


def test_a_step_counted_by_hand():
    found = seconds(SHAPE, LAUNCH, UNIT, HERE, ENGINE)
    # Prefill: 2 prompts of 9 tokens, whose pairs are 9 · 4.5 each, and 4 times 3 tokens after 11; 16 patches a prompt.
    tokens, pairs = 2 * 9 + 4 * 3, 2 * 40.5 + 4 * (3 * 11 + 4.5)
    tower = 2 * 50 * 16
    shown = 2 * (2 * 100 * tokens + 4 * 4 * pairs)
    assert found["prefill"] == pytest.approx(shown / 0.5 + 2 * tower / 0.25)
    # Decoding: layers and head (240 weights) for each token; 4 rows read keys and values, 2 layers x 4 x (2 + 2) bytes.
    seen = 4 * (2 * (9 + 1) + 2 * (11 + 3 + 1))
    assert found["decode"] * 0.5 == pytest.approx(2 * 240 * 4 * 4 + 2 * 4 * 4 * seen)
    quick = seconds(SHAPE, LAUNCH, replace(UNIT, half=100), HERE)  # reading takes longer then
    assert quick["decode"] * 0.75 == pytest.approx(2 * 240 * 4 + 32 * seen)
    slow = seconds(SHAPE, LAUNCH, UNIT, replace(HERE, layer=1e6))  # and then launching, of 2 layers and 4 tokens
    assert slow["decode"] == pytest.approx(8e6)
    drawn = seconds(SHAPE, replace(LAUNCH, drawn=True), UNIT, replace(HERE, layer=1e6), ENGINE)
    assert drawn["decode"] * 0.8 == pytest.approx(found["decode"] * 0.5)
    # Two passes, a group each: 8 tokens of a prompt, twice 1 + 3 + 4 behind it; the 4 of each that are sampled scored.
    language = 2 * (2 * 100 * 24 + 4 * 4 * (32 + 2 * (64 + 32))) + 2 * 10 * 4 * 8
    assert found["training"] == pytest.approx(2 * 3 * (language / 0.5 + tower / 0.25))
    assert found["scoring"] == found["exchange"] == 0
    penalised = seconds(SHAPE, replace(LAUNCH, penalised=True, checkpointing=True), UNIT, HERE)
    assert penalised["scoring"] * 3 == pytest.approx(found["training"])
    assert penalised["training"] * 3 == pytest.approx(found["training"] * 4)


def test_experts_that_are_not_chosen_are_read_but_not_computed():
    mixture = replace(SHAPE, language=replace(LANGUAGE, parameters=400))
    plain, found = (seconds(shape, LAUNCH, UNIT, HERE) for shape in (SHAPE, mixture))
    assert found == plain
    quick = replace(UNIT, half=1000)
    plain, found = (seconds(shape, LAUNCH, quick, HERE)["decode"] for shape in (SHAPE, mixture))
    assert (found - plain) * 0.75 == pytest.approx(2 * 2 * 300 * 4)  # bytes of both layers, for each of 4 tokens


def test_what_is_exchanged_counted_by_hand():
    """330 weights, of which 80 are the root's; two passes, each of which gathers twice and adds up in float32."""
    cut = replace(LAUNCH, devices=Devices(2, 2, shards=4))
    passed = 2 * 330 + 2 * (2 * 330 + 2 * 250 + 4 * 330)
    assert seconds(SHAPE, cut, UNIT)["exchange"] == pytest.approx(passed * 3 / 4 / (LINKS * 0.5))
    inside = replace(LAUNCH, devices=Devices(2, 2, shards=2))
    between = 2 * 2 * (4 * 330 / 2) / 2 / (LINKS * 0.25)
    assert seconds(SHAPE, inside, UNIT)["exchange"] == pytest.approx(passed / 2 / LINKS + between)
    copies = replace(LAUNCH, devices=Devices(2, 1, buckets=True))
    assert seconds(SHAPE, copies, UNIT)["exchange"] == pytest.approx(2 * 2 * 2 * 330 / 2 / LINKS)


@settings(deadline=None)
@given(st.integers(1, 300), st.integers(1, 8), st.integers(2, 8), st.booleans())
def test_more_takes_longer(reply, questions, group, cut):
    devices = Devices(2, 2, shards=4) if cut else Devices()
    one = replace(LAUNCH, reply=reply, questions=questions, group=group, devices=devices)
    before = seconds(SHAPE, one, UNIT, HERE, HERE)
    for more in (dict(reply=reply + 1), dict(questions=questions + 1), dict(epochs=2)):
        after = seconds(SHAPE, replace(one, **more), UNIT, HERE, HERE)
        assert sum(after.values()) > sum(before.values())


def test_a_tower_that_is_not_trained_sees_once():
    """In rollouts in process, or behind an engine's when an update learns from them."""
    frozen = replace(LAUNCH, freeze_vision=True, penalised=True)
    blind = replace(SHAPE, vision=replace(SHAPE.vision, active=0))
    here, none = (seconds(shape, frozen, UNIT, HERE, HERE) for shape in (SHAPE, blind))
    assert here["prefill"] > none["prefill"]
    assert (here["scoring"], here["training"]) == (none["scoring"], none["training"])
    for more, anew in ((dict(ahead=True), 2 * 2 * 50 * 16 / 0.25), (dict(), 0)):
        drawn = replace(frozen, drawn=True, epochs=2, **more)
        behind, none = (seconds(shape, drawn, UNIT, HERE, HERE) for shape in (SHAPE, blind))
        assert behind["training"] - none["training"] == pytest.approx(anew)
        assert behind["prefill"] > none["prefill"]


def test_only_what_is_learnt_from_twice_is_scored_before():
    """A step's only update has the log-probs of an engine's rollouts in its own pass."""
    drawn = replace(LAUNCH, drawn=True, epochs=1, mini_batches=1)
    assert seconds(SHAPE, drawn, UNIT, HERE, HERE)["scoring"] == seconds(SHAPE, LAUNCH, UNIT, HERE, HERE)["scoring"]
    for more in (dict(epochs=2), dict(mini_batches=2)):
        twice = seconds(SHAPE, replace(drawn, **more), UNIT, HERE, HERE)
        assert twice["scoring"] > seconds(SHAPE, drawn, UNIT, HERE, HERE)["scoring"]


@pytest.fixture(scope="module")
def plan(tmp_path_factory):
    path = tmp_path_factory.mktemp("plan") / "plan.json"

    def run(name, *arguments):
        main(["plan", "--config", str(shipped_config(name)), *arguments, f"--output={path}"])
        return json.loads(path.read_text())

    return run


def test_the_published_run_on_more_devices(plan, capsys):
    machines = plan("qwen2_5_vl_7b")["estimate"]["machines"]
    assert [(row["devices"], row["questions"]) for row in machines] == [(1, 512), (8, 64), (32, 16), (64, 8)]
    steps = [sum(row["seconds"].values()) for row in machines]
    for fewer, more in pairwise(machines):
        assert all(more["seconds"][phase] < fewer["seconds"][phase] for phase in ("prefill", "decode", "training"))
        assert more["peak"] < fewer["peak"] and more["fits"] >= fewer["fits"]
    assert steps == sorted(steps, reverse=True) and len(set(steps)) == 4
    printed = capsys.readouterr().out
    assert all(f"{step:,.1f}" in printed for step in steps) and "Measured on one H200: 0.39" in " ".join(
        printed.split()
    )


# An H200's data sheet: an H100 with other memory.
H200 = replace(H100, name="H200 SXM", gigabytes=141, memory=4.8e12)


def measured(reply, turns, micro, device=H200, **changes):
    """The run on an H200 (3B, adapters in float32): pictures of 1,247 tokens, and no box, so that a group sees the
    whole picture again, of which the features are those of the first turn."""
    said = (Said(109, wholes=1), Said(1356))[:turns]
    usual = dict(micro_tokens=micro, questions=8, group=8, reply=reply, limit=reply, penalised=True)
    launch = replace(
        LAUNCH, said=said, whole=1247, crop=1247, lora=(16, Lora().pattern), checkpointing=True, gradient=FLOAT,
        **usual | changes,
    )  # fmt: skip
    return seconds(measure_shape(QWEN2_5_VL.config("3b")), launch, device)


def test_the_steps_that_were_measured_follow_from_the_shares():
    two = measured(128, 2, 28672)
    assert sum(two.values()) == pytest.approx(10.9, rel=0.15)
    assert two["prefill"] + two["decode"] == pytest.approx(4.25, rel=0.2)
    one = measured(128, 1, 28672, penalised=False)
    assert sum(one.values()) == pytest.approx(2.45, rel=0.15)
    assert one["decode"] / 128 == pytest.approx(0.0071, rel=0.05)
    drawn = measured(128, 2, 28672, H100, drawn=True)
    assert drawn["prefill"] + drawn["decode"] == pytest.approx(3.4, rel=0.15)


@pytest.mark.parametrize(("devices", "nodes"), [(8, 1), (8, 8)])
def test_its_memory_is_the_plan_s(plan, devices, nodes):
    (row,) = [row for row in plan("qwen2_5_vl_7b")["estimate"]["machines"] if row["devices"] == devices * nodes]
    there = [f"--trainer.devices={devices}", f"--trainer.num_nodes={nodes}", f"--data.batch_size={row['questions']}"]
    own = plan("qwen2_5_vl_7b", *there, "--memory=80")
    assert own["memory"]["assumed"]["peak"] == row["peak"] and own["device"]["fits"] == row["fits"]
    assert row in own["estimate"]["machines"]


def test_an_engine_s_rollouts_are_scored_once_more(plan):
    def scoring(*arguments):
        return plan("qwen2_5_vl_7b", *arguments)["estimate"]["machines"][2]["seconds"]["scoring"]

    assert scoring("--model.sampler=mgpo.vllm.VLLMSampler") == pytest.approx(2 * scoring("--model.sampler=null"))


def test_numbers_of_devices_that_share_out_evenly_alone(plan):
    one = plan("qwen2_5_vl_7b", "--trainer.num_nodes=1", "--trainer.devices=3", "--data.batch_size=8")
    assert [row["devices"] for row in one["estimate"]["machines"]] == [1, 8]
    assert "estimate" not in plan("mgpo")  # which runs on a CPU
