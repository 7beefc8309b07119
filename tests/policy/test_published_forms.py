"""Checkpoints in the forms in which they are published: each loads, or one sentence says what is wrong."""

import json
import shutil
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from tokenizers import AddedToken
from transformers import AutoTokenizer

import mgpo
from mgpo.policy.families.qwen2_5_vl import Qwen25VL
from mgpo.policy.hub.checkpoint_files import family_of
from mgpo.policy.hub.templates import _takes_powers, complain
from mgpo.types import Message
from tests.checkpoints.test_hostile_checkpoints import refused
from tests.conftest import noise_image
from tests.helpers.families import ALL

ONE = pytest.mark.parametrize("family", ALL[:1], ids=lambda family: family.name, indirect=True)
TEXT_ONLY = (
    "{% for m in messages %}{{ '<|im_start|>' + m.role + '\n' "
    "+ (m.content if m.content is string else "
    "m.content[-1].text) + '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


@pytest.fixture
def copy(family_folder, tmp_path):
    return shutil.copytree(family_folder, tmp_path / "copy")


def load(folder, **options) -> Any:
    return family_of(str(folder))(str(folder), **options).load().eval()


def edit(folder, name, **fields):
    """Fields of a JSON file; those that are None are taken out."""
    file = folder / name
    given = (json.loads(file.read_text()) if file.exists() else {}) | fields
    file.write_text(json.dumps({key: value for key, value in given.items() if value is not None}))


@pytest.fixture
def template(copy):
    """The right one, whose own file is gone."""
    text = (copy / "chat_template.jinja").read_text()
    (copy / "chat_template.jinja").unlink()
    return text


@pytest.mark.parametrize("place", ["tokenizer_config.json", "chat_template.json", "processor_config.json"])
def test_a_template_is_found_wherever_it_stands(copy, template, place, family_policy):
    edit(copy, place, chat_template=template)
    assert load(copy).tokenizer.chat_template == family_policy.tokenizer.chat_template


@pytest.mark.parametrize("place", ["chat_template.json", "processor_config.json"])
@pytest.mark.parametrize("wrong", [TEXT_ONLY, "{{ raise_exception('no pictures') }}", "{% for"])
def test_one_for_text_alone_does_not_stand_in_the_way(copy, template, place, wrong, family_policy):
    edit(copy, "tokenizer_config.json", chat_template=wrong)
    edit(copy, place, chat_template=template)
    assert load(copy).tokenizer.chat_template == family_policy.tokenizer.chat_template


def several(**templates):
    return [{"name": name, "template": text} for name, text in templates.items()]


@ONE
def test_several_templates(copy, template):
    """The default, or the only one that shows pictures; where neither is there, one sentence."""
    named = [
        several(default=template, rag=template), several(chat=template, rag=TEXT_ONLY),
        several(default=TEXT_ONLY, vision=template), several(only=template),
    ]  # fmt: skip
    for templates in named:
        edit(copy, "tokenizer_config.json", chat_template=templates)
        assert load(copy).tokenizer.chat_template == template
    edit(copy, "tokenizer_config.json", chat_template=several(chat=template, rag=template + " "))
    refused(lambda: load(copy), r"several chat templates \(chat, rag\); give one of them the name default")
    edit(copy, "tokenizer_config.json", chat_template=several(chat=TEXT_ONLY))
    refused(lambda: load(copy), "shows 0 pictures where there is one")


@pytest.mark.parametrize(
    ("template", "powers"),
    [("{{ 2 ** 9 }}", True), ("{% set x = 9**9 %}", True), ("Be **bold**. {{ messages }}", False)],
)
def test_stars_are_powers_in_expressions_alone(template, powers):
    assert _takes_powers(template) is powers


HOSTILE = {
    "{{ raise_exception('go away') }}": "go away",
    "{{ ''.__class__.__mro__[1].__subclasses__() }}": "fails",
    "{{ messages.append(1) }}": "fails",
    "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}": "fails .TimeoutError",
    "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}": "recursion",
    "{{ 'x' * 100000000000 }}": "fails .MemoryError",
    "{{ 9**9**9 }}": "takes powers",
    "{{ 'x' * 10000000 }}": "writes 10,000,000 characters",
    "{{ '%9999999999d' % 1 }}": "fails",
    "{{ 1 / 0 }}": "division by zero",
    "{{ nothing.at.all }}": "undefined",
    "{% include '/etc/passwd' %}": "fails",
    "{% for m in messages %}": "fails",
    "": "no chat template",
    "Hello": "shows 0 pictures",
    "{{ messages }}": "shows 0 pictures",
}


@ONE
@pytest.mark.parametrize("text", HOSTILE)
def test_a_hostile_template_ends_in_a_sentence(copy, template, text, monkeypatch):
    if "Timeout" in HOSTILE[text]:
        monkeypatch.setattr("mgpo.policy.hub.templates.SECONDS", 0.3)
    edit(copy, "tokenizer_config.json", chat_template=text)
    assert len(refused(lambda: load(copy), HOSTILE[text])) <= 600


@ONE
def test_a_template_that_is_hostile_later(copy, template):
    """On a conversation of three messages it does as it should, on one of five it does not."""
    turn = "{% if messages|length > 4 %}{{ raise_exception('too long\nfor me') }}{% endif %}" + template
    edit(copy, "tokenizer_config.json", chat_template=turn)
    policy = load(copy)
    refused(lambda: policy.chat.open([Message("user", ("x",))] * 5, policy.pixels), "the chat template in .*too long")


def test_a_template_that_forgets_the_reply(family_policy):
    text = family_policy.tokenizer.chat_template.replace("messages", "messages[:1]")
    assert complain(family_policy.tokenizer, text, family_policy.slot) == "leaves out or repeats what is said"


def longer(folder, tokens, special):
    """The tokenizer with tokens for which the embedding has no rows."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.add_tokens([AddedToken(token, special=special, normalized=False) for token in tokens], special)
    tokenizer.save_pretrained(folder)


def test_a_tokenizer_longer_than_the_embedding(copy, family):
    """Tokens that text can't become do no harm; others would be looked up where there is nothing."""
    longer(copy, [f"<|extra_{i}|>" for i in range(40)], special=True)
    model = mgpo.load(copy, **family.caps)
    model.max_new_tokens = 3
    assert len(model.ask(noise_image(200, 100), "What is <|extra_39|>?").turns) == 2
    assert len(model.policy.token_texts) == len(model.policy.banned) == len(model.policy.model.lm_head.weight)
    longer(copy, ["wonderful"], special=False)
    refused(lambda: load(copy), r"the tokenizer in .* rows: wonderful has none; take the tokenizer that belongs")


@ONE
def test_a_pad_token_without_a_row_is_not_used(copy):
    longer(copy, [f"<|extra_{i}|>" for i in range(40)], special=True)
    edit(copy, "tokenizer_config.json", pad_token="<|extra_39|>")
    assert load(copy).pad_id < len(load(copy).banned)


@pytest.mark.parametrize("method", ["awq", "gptq", "bitsandbytes", "fp8", "compressed-tensors", "unheard of"])
@pytest.mark.parametrize("part", ["", "text_config"])
@ONE
def test_quantised_weights_are_refused(copy, method, part):
    given = {"quant_method": method, "bits": 4}
    config = json.loads((copy / "config.json").read_text())
    (config[part] if part else config)["quantization_config"] = given
    (copy / "config.json").write_text(json.dumps(config))
    refused(lambda: load(copy), rf"are quantised \({method}\); take the same model in bfloat16, or serve this one")


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        (dict(image_mean=None), "image_mean should be three numbers"), (dict(image_std=[0.5]), "image_std should be"),
        (dict(image_std=["a", 1, 2]), "image_std"), (dict(do_normalize=False), "do_normalize is off"),
        (dict(image_std=[0.0, 0.5, 0.5]), "image_std"), (dict(do_rescale=False), "do_rescale is off"),
        (dict(size={"shortest_edge": -1, "longest_edge": 0}), "size"), (dict(size="large"), "preprocessor_config"),
        (dict(rescale_factor="x"), "rescale_factor"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("family", [ALL[0], ALL[-1]], ids=lambda family: family.name, indirect=True)
def test_figures_of_the_image_processor_are_not_guessed(copy, fields, words):
    edit(copy, "preprocessor_config.json", **fields)
    assert len(refused(lambda: load(copy), words)) <= 600


def test_the_image_processor_belongs_to_the_tower(copy, family):
    fields = dict(size=dict(height=28, width=28)) if family.gemma else dict(patch_size=7)
    edit(copy, "preprocessor_config.json", **fields)
    refused(lambda: load(copy), "but (patch_size|image_size) in config.json is")


@pytest.mark.parametrize("family", ALL[:2], ids=lambda family: family.name, indirect=True)
def test_older_and_newer_forms_of_the_image_processor(copy, family_policy):
    """Caps under their old names, as Qwen2.5-VL was published; and all within processor_config.json, as of today."""
    given = json.loads((copy / "preprocessor_config.json").read_text())
    size = given["size"]
    expected = load(copy).resolution
    old = dict(min_pixels=size["shortest_edge"], max_pixels=size["longest_edge"], size=None)
    edit(copy, "preprocessor_config.json", **old)
    assert load(copy).resolution == expected
    (copy / "preprocessor_config.json").unlink()
    edit(copy, "processor_config.json", image_processor=given)
    assert load(copy).resolution == expected


@pytest.mark.parametrize("family", ALL[:1], ids=lambda family: family.name, indirect=True)
def test_a_configuration_without_parts_is_that_of_the_published_one(copy, family_policy):
    """Qwen2.5-VL was published with the language model's figures beside the tower's."""
    config = json.loads((copy / "config.json").read_text())
    flat = {**config.pop("text_config"), **config, "torch_dtype": "float32"}
    (copy / "config.json").write_text(json.dumps({k: v for k, v in flat.items() if k != "dtype"}))
    state = load(copy).state_dict()
    assert all(torch.equal(value, state[name]) for name, value in family_policy.state_dict().items())


@pytest.mark.parametrize(("name", "text"), [("tokenizer.json", "{}"), ("tokenizer.json", "x"), ("config.json", "{}")])
@ONE
def test_files_that_a_library_cannot_read(copy, name, text):
    (copy / name).write_text(text)
    assert str(copy) in refused(lambda: load(copy))


def test_python_takes_the_checkpoints_own_type(copy, family):
    for dtype in (torch.bfloat16, torch.float16, torch.float32):
        file = copy / "model.safetensors"
        save_file({k: v.to(dtype) for k, v in load_file(file).items()}, file, {"format": "pt"})
        config = json.loads((copy / "config.json").read_text())
        for part in (config, config["text_config"], config["vision_config"]):
            part.pop("dtype", None)
        if dtype != torch.float16:  # which is then seen from the weights
            config["dtype"] = str(dtype).removeprefix("torch.")
        (copy / "config.json").write_text(json.dumps(config))
        model = mgpo.load(copy, **family.caps)
        assert {p.dtype for p in model.policy.model.parameters()} == {dtype} and model.policy.dtype == dtype
    assert mgpo.load(copy, dtype="bfloat16", **family.caps).policy.dtype == torch.bfloat16


def test_a_type_that_is_none_is_refused():
    refused(lambda: Qwen25VL(dtype="int4"), r"policy\.dtype is int4; it is one of float32, bfloat16")


@pytest.mark.parametrize("family", ALL[1:2], ids=lambda family: family.name, indirect=True)
def test_pictures_without_a_cap_are_spoken_of(copy, family):
    mgpo.load(copy)
    edit(copy, "preprocessor_config.json", size=dict(shortest_edge=65536, longest_edge=16777216))
    with pytest.warns(UserWarning, match=r"16,777,216 pixels, which are 16,384 tokens.*max_pixels=1310720 would make"):
        mgpo.load(copy)
    mgpo.load(copy, max_pixels=1310720)
