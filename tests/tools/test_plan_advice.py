"""What `plan` advises: settings that make a launch fit, and what still fits."""

import json
from dataclasses import replace

import pytest

from mgpo.cli import main
from mgpo.policy.lora import Lora
from mgpo.tools.plan.advice import KNOBS, STEP, advise, filled, spared
from mgpo.tools.plan.launch import GB
from mgpo.tools.plan.memory import measure
from mgpo.tools.plan.shape import measure_shape
from mgpo.tools.plan.sizes import QWEN2_5_VL
from mgpo.utils.configurations import shipped_config
from tests.tools.test_plan import launch


@pytest.fixture(scope="module")
def shape():
    return measure_shape(QWEN2_5_VL.config("7b"))


@pytest.mark.parametrize("gigabytes", [70, 100, 140, 160])
def test_suggestions_fit_and_none_turns_further_than_it_must(shape, gigabytes):
    limit = gigabytes * GB
    start = launch()
    assert measure(shape, start).peak > limit
    found = advise(shape, start, limit)
    assert found and all(one.memory.peak <= limit and one.keys for one in found)
    for one in found:
        assert measure(shape, one.launch).peak == one.memory.peak
        if (size := one.keys.get("model.micro_batch_tokens")) and 2 * size <= start.micro_tokens:
            assert measure(shape, replace(one.launch, micro_tokens=2 * size)).peak > limit
    assert len({str(one.keys) for one in found}) == len(found)


def test_where_nothing_helps_nothing_is_suggested(shape):
    assert advise(shape, launch(), GB) == []
    assert all(next(knob(launch()), None) for knob in KNOBS)


def test_suggestions_given_back_as_keys_do_what_they_say(tmp_path, capsys):
    command = ["plan", "--config", str(shipped_config("qwen2_5_vl_7b")), "--memory=60", "--trainer.num_nodes=1"]
    main([*command, f"--output={tmp_path / 'plan.json'}"])
    report = json.loads((tmp_path / "plan.json").read_text())
    assert report["device"]["fits"] is False and "Does not fit" in capsys.readouterr().out
    for found in report["suggestions"]:
        keys = [f"--{key}={value}" for key, value in found["keys"].items()]
        main([*command, *keys, f"--output={tmp_path / 'again.json'}"])
        again = json.loads((tmp_path / "again.json").read_text())
        assert again["device"]["fits"] and again["memory"]["assumed"]["peak"] == found["peak"]


def test_as_few_layers_are_run_again_as_memory_asks_for(shape):
    """A tenth less of them would not fit; where none are, or all have to be, nothing is said."""
    start = launch(lora=(16, Lora().pattern), gradient=4, checkpointing=1, mini_batches=1)
    launches = [replace(start, checkpointing=tenth / 10) for tenth in range(11)]
    needed = [max(measure(shape, one, reply).of("update") for reply in (None, start.limit)) for one in launches]
    assert needed == sorted(needed, reverse=True) and needed[0] > needed[5] > needed[10]
    assert spared(shape, start, needed[5]) == next(t for t in range(11) if needed[t] <= needed[5]) / 10
    assert spared(shape, start, needed[10] - 1) is None and spared(shape, start, needed[0]) == 0
    assert spared(shape, replace(start, checkpointing=0), needed[0]) is None


def test_passes_are_filled_as_far_as_memory_goes(shape):
    start = launch(lora=(16, Lora().pattern), gradient=4, checkpointing=True, mini_batches=1)
    limit = 40 * GB
    found = filled(shape, start, limit)

    def update(tokens):
        return measure(shape, replace(start, micro_tokens=tokens), start.limit).of("update")

    assert found and update(found) <= limit < update(found + STEP)
    assert filled(shape, start, GB) is None
    whole = filled(shape, start, 1000 * GB)
    assert whole and update(whole) == update(2 * whole)


@pytest.mark.parametrize(("gigabytes", "said"), [(19, False), (80, True)])
def test_whoever_has_room_hears_of_faster_updates(gigabytes, said, tmp_path, capsys):
    recipe, output = shipped_config("qwen2_5_vl_3b"), tmp_path / "plan.json"
    main(["plan", f"--config={recipe}", "--model.sampler=null", f"--memory={gigabytes}", f"--output={output}"])
    report = json.loads(output.read_text())
    assert report["device"]["fits"] and ((share := report["spared"]) is not None) == said
    words = " ".join(capsys.readouterr().out.split())
    assert (f"--model.policy.init_args.gradient_checkpointing {share}." in words) == said
