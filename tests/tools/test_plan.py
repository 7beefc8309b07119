from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoConfig

from mgpo.cli import main
from mgpo.dialogues import BlindAnswer, FreeTurns, SingleTurn, TwoTurn
from mgpo.dialogues.asked import begins_anew
from mgpo.errors import UserError
from mgpo.policy.lora import Lora
from mgpo.tools.plan.launch import GB, Devices, Engine, Launch, Program
from mgpo.tools.plan.lengths import QUESTION, Said, converse, counter
from mgpo.tools.plan.memory import measure, tokens
from mgpo.tools.plan.shape import measure_shape, shape_of
from mgpo.tools.plan.sizes import QWEN2_5_VL
from mgpo.types import Reply, Trajectory, Turn
from mgpo.utils.configurations import shipped_config
from tests.conftest import make_policy, noise_image
from tests.performance.memory import Setting, compare

SMALL = Setting(layers=3, width=128, mlp=384, image=36, reply=16, vocabulary=2048, vision_width=64, vision_mlp=128)


@pytest.fixture(scope="module")
def shape():
    return measure_shape(QWEN2_5_VL.config("7b"))


def launch(**changes):
    said = (Said(100, wholes=1), Said(110, crops=1))
    usual = Launch(
        said, whole=1280, crop=1280, side=28, least=256, reply=256, limit=1024, questions=16, group=8,
        micro_tokens=9000, mini_batches=4, epochs=1, weight=2, value=2, gradient=2, state=4, penalised=True, lora=None,
        devices=Devices(8, 1, buckets=True),
    )  # fmt: skip
    return replace(usual, **changes)


@pytest.mark.parametrize(
    "changes",
    [
        {"freeze_vision": True},
        {"dtype": "bfloat16", "lora": 8, "micro": 2},
        {"dtype": "bfloat16", "lora": 8, "width": 256, "mlp": 1024, "vision_width": 32, "vision_mlp": 32},
        {"mixed": True, "checkpointing": True},
        {"pictures": 3},
        {"blind": True},
    ],
    ids=["freeze_vision", "lora", "lora, wide", "mixed", "pictures", "blind"],
)
def test_peaks_are_those_of_real_passes(changes, tokenizer):
    """The wide comparison is tests/performance/plan_memory.py."""
    for phase, found in compare(replace(SMALL, **changes), tokenizer).items():
        assert found.ratio == pytest.approx(1, abs=0.2), phase


MEASURED = [
    (2, 6144, 1, 19.7), (2, 28672, 1, 20.1), (1, 6144, 1, 12.8), (1, 28672, 1, 17.0),
    (2, 16384, 1, 15.2), (2, 16384, 0.5, 35.6), (2, 16384, 0.2, 48.6), (2, 16384, 0, 56.8),
]  # fmt: skip


@pytest.mark.parametrize(("turns", "micro", "share", "measured"), MEASURED)
def test_peaks_that_were_measured_on_an_h200(turns, micro, share, measured):
    """`python -m tests.performance gpu steps`: Qwen2.5-VL-3B in bfloat16 with adapters in float32, 8 questions x 8
    rollouts, replies of 128 tokens, pictures of 1,247 tokens, which two turns show twice and the tower sees once.
    The passes of 16,384 tokens are those of `update`, alone, by the share of layers that are run again."""
    said = (Said(109, wholes=1), Said(109, wholes=1))[:turns]
    run = launch(
        said=said, whole=1247, reply=128, limit=128, questions=8, micro_tokens=micro, gradient=4, state=8,
        mini_batches=1, lora=(16, Lora().pattern), checkpointing=share, devices=Devices(), penalised=turns > 1,
        program=Program(adapter=2, merged=False, shared=True, fused=True),
    )  # fmt: skip
    needed = measure(measure_shape(QWEN2_5_VL.config("3b")), run)
    peak = needed.of("update") if micro == 16384 else needed.peak
    assert peak / GB == pytest.approx(measured, rel=0.04)


def test_the_embedded_model_is_measured_from_its_folder(policy):
    """On the meta device a model has the shape that it has in memory."""
    counted = measure_shape(policy.model.config)
    assert counted == shape_of(policy.model)
    assert counted.parameters == sum(p.numel() for p in policy.model.parameters())


def test_families_of_one_image_size_have_its_tokens():
    """Gemma 3: 896 x 896 pixels in patches of 14 become 256 tokens, 4 x 4 patches each."""
    config = AutoConfig.for_model(
        "gemma3", vision_config={"image_size": 896, "patch_size": 14}, mm_tokens_per_image=256
    )
    shape = measure_shape(config)
    assert (shape.image_tokens, shape.merge, shape.language.gated, shape.vision.gated) == (256, 4, True, False)


def test_a_family_that_is_not_understood_is_said_so():
    with pytest.raises(UserError, match="qwen2_vl"):
        measure_shape(AutoConfig.for_model("qwen2_vl"))


def test_adapters_have_as_many_parameters_as_peft_makes(tokenizer, shape):
    lora = Lora(rank=4)
    policy = make_policy(tokenizer, lora=lora)
    trained = sum(p.numel() for p in policy.parameters() if p.requires_grad)
    assert measure_shape(policy.model.config).adapter_parameters(lora.rank, lora.targets) == trained


@pytest.mark.parametrize("pictures", [1, 3])
@pytest.mark.parametrize("dialogue", [TwoTurn(), TwoTurn(turns=3), SingleTurn(), FreeTurns(), BlindAnswer()])
def test_texts_are_as_long_as_in_the_chat(dialogue, pictures, policy):
    """By the tokenizer, the text that is shown is within a few tokens of what is really shown."""
    said = converse(dialogue, counter(read_path()), pictures)
    image = noise_image(448, 448)
    trajectory = Trajectory(QUESTION, image, others=(image,) * (pictures - 1))
    prompt = policy.chat.open(
        dialogue.open(trajectory, policy.resolution), lambda view: policy.pixels(view.pixels(image))
    )
    for turn in said:
        shown = len(prompt.ids) - sum(i == policy.chat.image_id for i in prompt.ids)
        assert abs(turn.text - shown) <= 8
        assert turn.wholes + turn.crops == len(prompt.images)
        assert turn.fresh == (prompt.fresh and len(trajectory.turns) > 0)
        reply = Reply((1,), (0.0,), "marker")
        trajectory.turns.append(Turn(prompt, reply, "[10, 10, 60, 60]"))
        messages = dialogue.proceed(trajectory, policy.resolution)
        assert (messages is None) == (turn is said[-1])
        if messages is None:
            continue
        if begins_anew(messages):
            prompt = policy.chat.open(messages, lambda view: policy.pixels(view.pixels(image)))
        else:
            prompt = policy.chat.follow(messages, reply, lambda view: policy.pixels(view.pixels(image)))


def read_path():
    return str(shipped_config("mgpo").parent.parent / "mgpo" / "world" / "weights")


def test_a_group_s_prompt_counts_once(shape):
    """In rollouts once a question; in training once for each micro-batch that holds some of its group."""
    one = tokens(shape, launch(micro_tokens=16_700))
    assert one["rollout prefill"] == 16 * 1380 + 128 * 1390
    assert one["decoded"] == 128 * 512
    assert one["training"] == one["reference"] == 16 * 1379 + 128 * (1 + 1390 + 512)
    assert tokens(shape, launch(micro_tokens=9000))["training"] == one["training"] + 16 * 1379
    assert (
        tokens(shape, launch(micro_tokens=50_000))["training"] == one["training"]
    )  # in passes of 3 groups and of less
    assert one["patches in training"] == one["patches in rollouts"] == 4 * 1280 * (16 + 128)


def test_what_is_held_is_what_is_trained(shape):
    whole = measure(shape, launch())
    assert whole.update["gradient buckets"] == whole.update["gradients"] == whole.update["weights"]
    assert whole.step["gradients"] == 2 * shape.parameters and "gradients" not in whole.rollouts
    frozen = measure(shape, launch(freeze_vision=True)).step
    assert frozen["gradients"] == 2 * (shape.parameters - shape.seeing)
    assert frozen["optimiser"] == 4 * (shape.parameters - shape.seeing)
    lora = (16, Lora().pattern)
    adapted = measure(shape, launch(lora=lora, gradient=4, state=8)).step
    assert adapted["reference"] == 0 and adapted["gradients"] == 4 * shape.adapter_parameters(*lora)
    assert adapted["weights"] == 2 * shape.parameters + adapted["gradients"]
    seeing = launch(lora=(16, Lora(vision=True).pattern))
    assert measure(shape, seeing).step["gradients"] > measure(shape, launch(lora=lora)).step["gradients"]


def test_shards_divide_what_is_held(shape):
    """Rollouts gather all weights in what is computed in; an update the root's, and layers one by one."""
    mixed = dict(weight=4, value=2, gradient=4, state=8)
    whole = measure(shape, launch(**mixed, devices=Devices(8)))
    cut = measure(shape, launch(**mixed, devices=Devices(8, shards=8)))
    for kind in ("weights", "optimiser", "reference", "gradients"):
        assert cut.step[kind] == whole.step[kind] // 8
    assert cut.rollouts["gathered weights"] == 2 * shape.parameters
    assert 2 * 545e6 * 2 < cut.update["gathered weights"] < 4e9  # embeddings and head have 545 million each
    assert cut.peak < whole.peak
    moved = measure(shape, launch(**mixed, devices=Devices(8, shards=8, offload=True)))
    assert moved.host["optimiser"] == cut.step["optimiser"] and moved.of("step") == 0


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 64), st.integers(1, 32), st.integers(2, 16), st.integers(16, 2048), st.booleans())
def test_more_is_never_less(shape, micro, questions, group, reply, adapted):
    lora = (16, Lora().targets) if adapted else None
    one = launch(micro_tokens=1000 * micro, questions=questions, group=group, limit=reply, lora=lora)
    peak = measure(shape, one, reply)
    assert measure(shape, replace(one, questions=questions + 1), reply).of("rollouts") > peak.of("rollouts")
    assert measure(shape, replace(one, limit=reply + 16), reply + 16).of("rollouts") > peak.of("rollouts")
    assert measure(shape, replace(one, checkpointing=True), reply).of("update") <= peak.of("update")
    assert measure(shape, replace(one, micro_tokens=2000 * micro), reply).of("update") >= peak.of("update")


@pytest.mark.parametrize("name", ["mgpo", "grpo", "sft", "free", "qwen2_5_vl_3b"])
def test_every_shipped_configuration_can_be_planned(name, capsys):
    main(["plan", "--config", str(shipped_config(name))])
    assert "peak memory" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--model.policy.init_args.path={folder}"], "no config.json"),
        (["--trainer.strategy=deepspeed"], "trainer.strategy"),
        (["--reply=0"], "reply is 0"),
        (["--memory=0"], "memory is 0"),
    ],
)
def test_mistakes_get_one_sentence(arguments, says, tmp_path):
    arguments = [argument.format(folder=tmp_path) for argument in arguments]
    with pytest.raises(SystemExit) as stop:
        main(["plan", "--config", str(shipped_config("mgpo")), *arguments])
    assert says in str(stop.value) and "\n" not in str(stop.value)


def test_how_the_program_computes_decides_what_rollouts_take(shape):
    """Merged adapters need nothing beside but the base's own weights, and a shared prompt is held once a question."""
    start = launch(lora=(16, Lora().pattern), gradient=4, weight=4, value=4)
    usual, merged, shared = (
        measure(shape, replace(start, program=program)).rollouts
        for program in (Program(), Program(merged=True), Program(shared=True))
    )
    layers = sum(inputs * outputs for inputs, outputs in shape.adapted(Lora().pattern, seen=False))
    assert merged["base of merged weights"] == 4 * layers and merged["work"] < usual["work"]
    copies = 16 * (8 - 1) * 1380  # of a prompt
    assert usual["cache"] - shared["cache"] == pytest.approx(copies * 8 * 28 * 512)


def test_an_engine_takes_its_share_and_sleeps_in_updates(shape):
    start = launch(lora=(16, Lora().pattern), gradient=4)
    alone = measure(shape, start)
    beside = measure(shape, replace(start, drawn=True, engine=Engine(0.45, 2), memory=80 * GB))
    assert 36 * GB < beside.rollouts["engine"] < 38.5 * GB
    assert 0 < beside.of("update") - alone.of("update") < 2 * GB
    narrow = measure(shape, replace(start, drawn=True, engine=Engine(0.1, 2), memory=80 * GB))
    assert narrow.rollouts["engine"] > 2 * shape.parameters  # or it would not start
    elsewhere = measure(shape, replace(start, drawn=True, ahead=True))
    assert elsewhere.rollouts.keys() == {"weights", "optimiser", "reference", "teacher", "gradient buckets"}


def test_what_a_tower_that_is_not_trained_saw_is_kept_with_the_pictures(shape):
    """Of each image token 3,584 values beside its 4 patches: of 16 questions, and of 128 crops."""
    counted = 1280 * (16 + 128)
    whole, frozen = (measure(shape, launch(freeze_vision=frozen)).host["pictures"] for frozen in (False, True))
    assert whole == counted * 4 * 1176 * 4 and frozen - whole == counted * 3584 * 2


def test_for_an_engine_a_tower_that_is_not_trained_looks_here(shape):
    """At as many pictures as are passed together; what they become lies on the host."""
    start = launch(lora=(16, Lora().pattern), gradient=4, drawn=True)
    apart, beside = (
        measure(shape, replace(start, engine=engine, memory=80 * GB)) for engine in (None, Engine(0.45, 2))
    )
    patches = 2**24 // shape.patch_values
    assert beside.rollouts["work"] >= apart.rollouts["work"] > 4 * patches * shape.vision.width * start.value
    for more in (dict(ahead=True), dict(lora=None, gradient=2)):
        assert "work" not in measure(shape, replace(start, **more)).rollouts
