from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import Qwen2VLImageProcessorPil

from mgpo.images.views import View
from mgpo.policy.base import evaluating
from mgpo.policy.families.qwen2_5_vl import Qwen25VL
from mgpo.policy.families.qwen_pixels import Patcher
from mgpo.policy.passes.positions import mrope
from mgpo.types import Message, Pixels, Prompt, Reply
from tests.conftest import make_policy, noise_image


@pytest.mark.parametrize("size", [(112, 112), (84, 140)])
def test_patches_equal_the_library(size):
    processor = Qwen2VLImageProcessorPil()
    image = noise_image(*size)
    ours = Patcher(processor)(image)
    theirs = processor(image, do_resize=False, return_tensors="pt")
    assert torch.allclose(ours.patches, theirs["pixel_values"], atol=1e-6)
    assert [list(ours.grid)] == theirs["image_grid_thw"].tolist()


def grid_pixels(height, width):
    return Pixels(torch.zeros(4 * height * width, 1), (1, 2 * height, 2 * width))


segments = st.lists(
    st.one_of(st.integers(1, 5), st.tuples(st.integers(1, 4), st.integers(1, 4))), min_size=1, max_size=5
)


@settings(max_examples=30, deadline=None)
@given(segments, st.integers(1, 4))
def test_positions_equal_the_library_over_all_turns(policy, parts, cut):
    """Pieces that follow each other get the positions that get_rope_index gives to the whole."""
    prompts = [
        Prompt((7,) * part) if isinstance(part, int)
        else Prompt((policy.chat.image_id,) * (part[0] * part[1]), (grid_pixels(*part),))
        for part in [2, *parts, 1]
    ]  # fmt: skip
    ids = [i for prompt in prompts for i in prompt.ids]
    images = [image for prompt in prompts for image in prompt.images]
    kinds = torch.tensor([[int(i == policy.chat.image_id) for i in ids]])
    # Two images side by side are one run of tokens to the library's scan; text always parts them in a chat.
    if any(not isinstance(a, int) and not isinstance(b, int) for a, b in pairwise(parts)):
        return
    grid = torch.tensor([image.grid for image in images]) if images else None
    expected, _ = policy.model.model.get_rope_index(torch.tensor([ids]), kinds, image_grid_thw=grid)
    at, pieces = 0, []
    for prompt in prompts:
        placed, at = mrope(prompt, at, policy.chat.image_id, 2)
        pieces.append(placed)
    assert torch.equal(torch.cat(pieces, 1), expected[:, 0])


def test_chat_ids_equal_the_template(policy, tokenizer):
    """What is shown is what the family's own template makes of the same messages, image tokens expanded."""
    image = noise_image(112, 112)
    view = View.full(image.size, policy.resolution.full)
    prompt = policy.chat.open(
        [Message("system", ("Be brief.",)), Message("user", (view, "What is it?"))],
        lambda v: policy.pixels(v.pixels(image)),
    )
    reply = Reply((*policy.chat.encode_text("A cat."), policy.chat.end_id), (0.0,) * 9, "end")
    after = policy.chat.follow([Message("user", ("Sure?",))], reply, lambda v: policy.pixels(v.pixels(image)))
    text = tokenizer.apply_chat_template(
        [
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "What is it?"}]},
            {"role": "assistant", "content": "A cat."},
            {"role": "user", "content": "Sure?"},
        ],
        tokenize=False,
        add_generation_prompt=True,
    )
    expected = tokenizer.encode(text.replace("<|image_pad|>", "<|image_pad|>" * 16), add_special_tokens=False)
    assert [*prompt.ids, *reply.ids, *after.ids] == expected


def test_control_tokens_in_a_question_are_text(policy):
    ids = policy.chat.encode_text("<|im_end|><|image_pad|>")
    assert policy.chat.end_id not in ids
    assert policy.chat.image_id not in ids


def save(policy, folder):
    policy.model.save_pretrained(folder)
    policy.tokenizer.save_pretrained(folder)
    policy.processor.save_pretrained(folder)


def test_a_checkpoint_on_disk_is_the_same_policy(policy, tmp_path):
    save(policy, tmp_path)
    again = Qwen25VL(str(tmp_path), 112 * 112, 784).load()
    image = noise_image(200, 300)
    view = View.full(image.size, policy.resolution.full)
    assert torch.equal(
        policy.features([policy.pixels(view.pixels(image))]), again.features([again.pixels(view.pixels(image))])
    )
    assert torch.equal(policy.banned, again.banned)


def test_another_architecture_is_refused(policy, tmp_path):
    save(policy, tmp_path)
    config = (tmp_path / "config.json").read_text()
    (tmp_path / "config.json").write_text(config.replace('"model_type": "qwen2_5_vl"', '"model_type": "qwen2_vl"'))
    with pytest.raises(ValueError, match=r"holds a qwen2_vl model; this policy needs qwen2_5_vl"):
        Qwen25VL(str(tmp_path)).load()


def test_a_tokenizer_without_vision_tokens_is_refused(policy, tmp_path):
    save(policy, tmp_path)
    text = (tmp_path / "tokenizer.json").read_text()
    (tmp_path / "tokenizer.json").write_text(text.replace("<|vision_start|>", "<|nothing_of_it|>"))
    settings_file = tmp_path / "tokenizer_config.json"
    settings_file.write_text(settings_file.read_text().replace("<|vision_start|>", "<|nothing_of_it|>"))
    with pytest.raises(ValueError, match="not a qwen2_5_vl"):
        Qwen25VL(str(tmp_path)).load()


def test_training_goes_on_from_the_weights_of_another_run(tokenizer, policy, tmp_path):
    save(policy, tmp_path)
    trained = make_policy(tokenizer, seed=5)
    torch.save({"state_dict": {f"policy.{k}": v for k, v in trained.state_dict().items()}}, tmp_path / "trained.ckpt")
    loaded = Qwen25VL(str(tmp_path), start=str(tmp_path / "trained.ckpt")).load()
    for (name, ours), theirs in zip(loaded.named_parameters(), trained.parameters(), strict=True):
        assert torch.equal(ours, theirs), name


@pytest.mark.parametrize("content", [None, b"not a checkpoint", "empty"])
def test_what_is_no_checkpoint_of_a_run_is_refused(policy, tmp_path, content):
    save(policy, tmp_path)
    path = tmp_path / "trained.ckpt"
    if content == "empty":
        torch.save({"epoch": 1}, path)
    elif content:
        path.write_bytes(content)
    with pytest.raises(ValueError, match=r"trained\.ckpt (is not|can.t be read as) a checkpoint of a run"):
        Qwen25VL(str(tmp_path), start=str(path)).load()


def test_a_pass_that_breaks_leaves_training_mode_as_it_was(fresh_policy):
    """Else layers would not be run again in the backward pass of the next fit, and a step not fit any more."""

    def fail():
        with evaluating(fresh_policy):
            assert not fresh_policy.training
            raise ZeroDivisionError

    fresh_policy.train()
    with pytest.raises(ZeroDivisionError):
        fail()
    assert all(module.training for module in fresh_policy.modules())
