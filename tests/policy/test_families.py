"""Every family on a tiny random checkpoint of its real classes: what it is shown, and how."""

from dataclasses import replace
from functools import partial
from typing import Any

import pytest
import torch

from mgpo.images.boxes import BoxRule, parse_box
from mgpo.images.views import View
from mgpo.policy.families.qwen import QwenVL
from mgpo.policy.families.qwen_pixels import PixelBudget
from mgpo.types import Message, Pixels, Reply
from tests.conftest import noise_image

IMAGES = [noise_image(448, 448, 1), noise_image(640, 320, 2), noise_image(300, 500, 3)]


@pytest.fixture
def policy(family_policy):
    return family_policy


def test_images_equal_the_librarys(family, policy):
    """What the tower is given is what the family's own image processor makes of an image of that size."""
    image = View.full(IMAGES[1].size, policy.resolution.full).pixels(IMAGES[1])
    theirs = policy.processor(image, do_resize=False, return_tensors="pt")
    assert torch.allclose(policy.pixels(image).patches, theirs["pixel_values"].squeeze(0), atol=1e-5)


def test_what_is_seen_has_the_familys_sizes(family, policy):
    for image in IMAGES:
        for resize in (policy.resolution.full, policy.resolution.crop):
            assert all(side % family.factor == 0 for side in resize(image.size))


def test_pixel_caps_are_the_checkpoints_own_unless_given(family, policy):
    if isinstance(policy, QwenVL) and family.name != "qwen2_5_vl":  # whose defaults are the paper's
        resolution = type(policy)(policy.path).resolution_of(policy.processor)
        assert (
            resolution.full
            == PixelBudget(2 * family.factor**2, 12 * family.factor**2, family.factor)
            == resolution.crop
        )


@pytest.mark.parametrize("reply", ["A cat.", "<think>\nHm.\n</think>\n\nA cat."])
def test_chat_ids_equal_the_template(policy, reply):
    """Turn 1 and two follow-ups, white space at the ends of texts included, against the tokenizer's own way."""
    whole = View.full(IMAGES[0].size, policy.resolution.full)
    crop = whole.crop((0, 0, 30, 40), policy.resolution.crop)
    turns = [
        [Message("system", ("Be brief.",)), Message("user", (whole, "\nWhat is it? "))],
        [Message("user", ("Here is a part: ", crop, "\n\nSure?"))],
        [Message("user", ("  Really?\n",))],
    ]
    said = Reply((*policy.chat.encode_text(reply), policy.chat.end_id), (), "end")
    pixels = partial(cut, policy)
    shown = [policy.chat.open(turns[0], pixels), *(policy.chat.follow(turn, said, pixels) for turn in turns[1:])]
    ids: list[int] = []
    messages: list[dict[str, Any]] = []
    for k, turn in enumerate(turns):
        messages += map(spoken, turn)
        ids += shown[k].ids
        expected = template_ids(policy, messages, [image for prompt in shown[: k + 1] for image in prompt.images])
        # A family that thinks forgets, in later turns, the thought that a reply began with; what was shown stays.
        if k == 0 or "<think>" not in policy.tokenizer.chat_template:
            assert ids == expected
        assert list(shown[k].ids) == expected[-len(shown[k].ids) :]
        messages.append(dict(role="assistant", content=reply))
        ids += said.ids


def cut(policy, view: View) -> Pixels:
    return policy.pixels(view.pixels(IMAGES[0]))


def spoken(message: Message) -> dict[str, Any]:
    content = [{"type": "text", "text": p} if isinstance(p, str) else {"type": "image"} for p in message.parts]
    return dict(role=message.role, content=content)


def template_ids(policy, messages: list[dict[str, Any]], images: list[Pixels]) -> list[int]:
    """The tokenizer's own template, with each image's slot filled."""
    settings = dict(tokenize=False, add_generation_prompt=True, enable_thinking=False)
    first, *others = policy.tokenizer.apply_chat_template(messages, **settings).split(policy.slot)
    filled = first + "".join(policy.expand(image) + text for image, text in zip(images, others, strict=True))
    return policy.tokenizer.encode(filled, add_special_tokens=False)


def test_an_end_that_was_not_sampled_is_shown(policy):
    cut = Reply(tuple(policy.chat.encode_text("A ca")), (), "length")
    ended = replace(cut, ids=(*cut.ids, policy.chat.end_id), stop="end")
    shown, rest = (policy.chat.follow([Message("user", ("Go on.",))], reply, None).ids for reply in (cut, ended))
    assert shown == (policy.chat.end_id, *rest)


def test_control_tokens_in_a_question_are_text(policy):
    names = [policy.chat.end, policy.image_token, policy.slot]
    assert not {policy.tokenizer.convert_tokens_to_ids(n) for n in names} & set(policy.chat.encode_text("".join(names)))


def test_a_box_maps_to_the_same_original_pixels(family, policy):
    """A region named in the family's frame comes back, up to one input pixel for rounded numbers."""
    assert policy.resolution.frame is family.frame
    region = (150, 80, 450, 240)
    view = View.full((640, 320), policy.resolution.full)
    named = family.frame.from_pixels(view.to_input(region), view.size)
    found = parse_box(f'{{"bbox_2d": {[round(n) for n in named]}}}', view.size, family.frame, BoxRule(min_side=8)).box
    back = view.to_original(found)
    pixel = max(640 / view.size[0], 320 / view.size[1])
    assert max(abs(a - b) for a, b in zip(back, region)) <= pixel
