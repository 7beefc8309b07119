"""A trained policy outside of this package: a plain checkpoint with the same weights and logits."""

import json

import pytest
import torch
from safetensors import safe_open
from transformers import AutoImageProcessor, AutoTokenizer, GenerationConfig, Qwen2_5_VLForConditionalGeneration

import mgpo
from mgpo.api import Model
from mgpo.data.scenes import Scenes
from mgpo.dialogues import FreeTurns, TwoTurn
from mgpo.errors import UserError
from mgpo.inference.export import export
from mgpo.policy.hub.checkpoint_files import family_of
from mgpo.policy.lora import Lora
from tests.conftest import make_policy, noise_image
from tests.helpers.families import ALL, save_checkpoint


@pytest.fixture(scope="module")
def model():
    return mgpo.load()


@pytest.fixture(scope="module")
def folder(model, tmp_path_factory):
    folder = tmp_path_factory.mktemp("export") / "checkpoint"
    model.save(folder)
    return folder


def logits_of(plain, policy):
    """Of a prompt with a picture, by the stock class alone."""
    image = policy.pixels(noise_image(112, 84))
    t, h, w = image.grid
    count = t * h * w // policy.processor.merge_size**2
    text = f"<|im_start|>user\n<|vision_start|>{'<|image_pad|>' * count}<|vision_end|>Which?<|im_end|>\n"
    ids = torch.tensor([policy.tokenizer.encode(text)])
    kinds = (ids == policy.chat.image_id).int()
    with torch.no_grad():
        return plain(
            input_ids=ids, pixel_values=image.patches.to(plain.dtype), image_grid_thw=torch.tensor([image.grid]),
            mm_token_type_ids=kinds,
        ).logits.float()  # fmt: skip


def test_stock_classes_load_it_with_equal_weights_and_logits(model, folder):
    plain = Qwen2_5_VLForConditionalGeneration.from_pretrained(folder).eval()
    ours, theirs = model.policy.model.state_dict(), plain.state_dict()
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(value, theirs[name]) for name, value in ours.items())
    assert torch.allclose(logits_of(plain, model.policy), logits_of(model.policy.model, model.policy), atol=1e-4)


def test_tokenizer_template_and_budget_come_along(model, folder):
    tokenizer = AutoTokenizer.from_pretrained(folder)
    assert tokenizer.get_vocab() == model.policy.tokenizer.get_vocab()
    chat = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "Which?"}]}]
    shown = tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True)
    assert shown.startswith("<|im_start|>user\n<|vision_start|><|image_pad|><|vision_end|>Which?<|im_end|>")
    processor = AutoImageProcessor.from_pretrained(folder)
    picture = noise_image(1000, 700)
    grid = processor(images=[picture], return_tensors="pt")["image_grid_thw"][0].tolist()
    width, height = model.resolution.full(picture.size)
    assert grid == [1, height // processor.patch_size, width // processor.patch_size]
    video = json.loads((folder / "video_preprocessor_config.json").read_text())
    assert video["video_processor_type"] == "Qwen2VLVideoProcessor"
    assert video["image_mean"] == list(processor.image_mean)


def test_a_server_decodes_without_penalties(tokenizer, tmp_path):
    policy = make_policy(tokenizer)
    policy.model.generation_config = GenerationConfig(
        do_sample=True, temperature=0.1, repetition_penalty=1.05, eos_token_id=[2, 0], pad_token_id=0
    )
    Model(policy, TwoTurn()).save(tmp_path / "out")
    saved = GenerationConfig.from_pretrained(tmp_path / "out")
    assert saved.eos_token_id == [2, 0]
    assert saved.repetition_penalty in (None, 1.0) and not saved.do_sample and saved.temperature in (None, 1.0)


def test_it_is_loaded_back_with_its_dialogue_and_budget(model, folder, tmp_path):
    question = Scenes(4, split="val")[3]
    original = question.picture.load()
    again = mgpo.load(folder)
    assert again.resolution == model.resolution and again.max_new_tokens == model.max_new_tokens
    assert again.ask(original, question.text).turns == model.ask(original, question.text).turns
    free = FreeTurns(turns=2, finish="Say it now.")
    Model(model.policy, free, 17).save(tmp_path / "free")
    loaded = mgpo.load(tmp_path / "free")
    assert isinstance(loaded.dialogue, FreeTurns) and vars(loaded.dialogue) == vars(free)
    assert loaded.max_new_tokens == 17


@pytest.mark.parametrize("family", ALL, ids=lambda family: family.name)
def test_every_family_comes_back(family, tmp_path):
    checkpoint = str(save_checkpoint(family, tmp_path / "base"))
    for lora in (None, Lora(4, targets=r".*language_model.*\.(q|k|v|o)_proj")):
        policy = family_of(checkpoint)(checkpoint, lora=lora, **family.caps).load().eval()
        shake_adapters(policy)
        before = Model(policy, TwoTurn(), 12)
        before.save(tmp_path / f"{lora}")
        after = mgpo.load(tmp_path / f"{lora}")
        assert after.resolution == before.resolution
        picture = noise_image(300, 200)
        assert after.ask(picture, "Which?").turns == before.ask(picture, "Which?").turns
        if lora is None:
            ours, theirs = policy.state_dict(), after.policy.state_dict()
            assert ours.keys() == theirs.keys()
            assert all(torch.equal(value, theirs[name]) for name, value in ours.items())
    video = tmp_path / "None" / "video_preprocessor_config.json"
    assert video.exists() is not family.gemma


def test_half_precision(model, tmp_path):
    before = {name: value.clone() for name, value in model.policy.state_dict().items()}
    model.save(tmp_path / "half", "bfloat16")
    with safe_open(tmp_path / "half" / "model.safetensors", "pt") as file:
        assert {file.get_tensor(name).dtype for name in file.keys()} == {torch.bfloat16}  # noqa: SIM118
    config = json.loads((tmp_path / "half" / "config.json").read_text())
    assert config["dtype"] == config["text_config"]["dtype"] == config["vision_config"]["dtype"] == "bfloat16"
    loaded = mgpo.load(tmp_path / "half").policy
    assert {p.dtype for p in loaded.model.parameters()} == {torch.bfloat16}
    half = loaded.state_dict()
    assert all(torch.equal(value.bfloat16(), half[name]) for name, value in before.items())
    assert all(torch.equal(value, model.policy.state_dict()[name]) for name, value in before.items())


@pytest.fixture
def adapted(tokenizer):
    """A policy with adapters that do something."""
    policy = make_policy(tokenizer, lora=Lora(rank=4))
    shake_adapters(policy)
    return policy


def shake_adapters(policy):
    torch.manual_seed(1)
    for name, parameter in policy.model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.1)


def test_adapters_are_merged(adapted, tmp_path):
    Model(adapted, TwoTurn()).save(tmp_path / "merged")
    plain = Qwen2_5_VLForConditionalGeneration.from_pretrained(tmp_path / "merged").eval()
    assert not any("lora" in name for name in plain.state_dict())
    with adapted.reference():
        base = logits_of(adapted.model, adapted)
    ours, theirs = logits_of(adapted.model, adapted), logits_of(plain, adapted)
    assert torch.allclose(ours, theirs, atol=1e-4)
    assert not torch.allclose(base, theirs, atol=1e-2)


def test_adapters_alone(adapted, tokenizer, tmp_path):
    base = make_policy(tokenizer)
    Model(base, TwoTurn()).save(tmp_path / "base")
    Model(adapted, TwoTurn()).save(tmp_path / "adapters", merge=False)
    assert not (tmp_path / "adapters" / "model.safetensors").exists()
    plain = Qwen2_5_VLForConditionalGeneration.from_pretrained(tmp_path / "base").eval()
    plain.load_adapter(str(tmp_path / "adapters"))
    assert torch.allclose(logits_of(adapted.model, adapted), logits_of(plain, adapted), atol=1e-5)


def test_what_cant_be_exported_is_said_in_one_sentence(model, folder, adapted, tmp_path):
    with pytest.raises(UserError, match="is not empty; name another folder"):
        model.save(folder)
    with pytest.raises(UserError, match="no adapters"):
        model.save(tmp_path / "alone", merge=False)
    adapted.start = "runs/first/trained.ckpt"
    with pytest.raises(UserError, match="belong to the weights in runs/first"):
        Model(adapted, TwoTurn()).save(tmp_path / "alone", merge=False)
    assert not list(tmp_path.iterdir())
    (tmp_path / "config.yaml").write_text('{"model": ' + (folder / "mgpo.json").read_text() + "}")
    with pytest.raises(UserError, match="has saved no weights"):
        export(str(tmp_path), str(tmp_path / "out"))
    with pytest.raises(UserError, match="a part of the path is a file; name another --output"):
        export("none that is read", str(tmp_path / "config.yaml" / "out"))


def test_the_card_says_how_to_prompt(model, folder, tmp_path, capsys):
    card = (folder / "README.md").read_text()
    assert card.startswith("---\nlibrary_name: transformers\n")
    for text in (model.dialogue.system, model.dialogue.ask_box, model.dialogue.show_region):
        assert f"````text\n{text}\n````" in card
    assert "pixels of the picture as the model sees it" in card
    assert "max_pixels=15680" in card and "crop_max_pixels=7840" in card
    assert "base_model" not in card and str(folder) not in card  # a path of this machine helps nobody
    export("embedded", str(tmp_path / "by command"))
    assert (tmp_path / "by command" / "README.md").read_text() == card
    assert "by command" in capsys.readouterr().out
