"""Every family on a tiny random checkpoint of its real classes: chat, positions, log-probs, sight, errors."""

import json
import shutil
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch.nn import functional as F

from mgpo.boxes import BoxRule, find_box
from mgpo.dialogues import TwoTurn
from mgpo.policy.batch import collate
from mgpo.policy.gemma3 import Gemma3
from mgpo.policy.logprobs import score
from mgpo.policy.published import family_of
from mgpo.policy.qwen2_5_vl import Qwen25VL
from mgpo.rollout import roll_out
from mgpo.sampler import InProcessSampler, Sampling
from mgpo.types import Message, Prompt, Reply, Trajectory, Turn
from mgpo.views import View
from tests.conftest import make_question, noise_image
from tests.families import ALL, Family, save_checkpoint

IMAGES = [noise_image(448, 448, 1), noise_image(640, 320, 2), noise_image(300, 500, 3)]
DIALOGUE = TwoTurn(rule=BoxRule(min_side=8), turns=3)


@pytest.fixture(scope="module", params=ALL, ids=lambda family: family.name)
def family(request) -> Family:
    return request.param


@pytest.fixture(scope="module")
def folder(family, tmp_path_factory):
    return save_checkpoint(family, tmp_path_factory.mktemp(family.name))


@pytest.fixture(scope="module")
def policy(family, folder):
    return family_of(str(folder))(str(folder), **family.caps).load().eval()


def box_reply(family: Family) -> str:
    return f'```json\n[{{"bbox_2d": {list(family.box)}, "label": "red mark"}}]\n```'


class Dictated:
    """A sampler whose first replies are dictated in every other row, token by token as if sampled."""

    def __init__(self, text: str) -> None:
        self.text = text

    def open(self, policy, prompts, copies):
        conversation = InProcessSampler().open(policy, prompts, copies)
        sample = conversation.reply

        def reply(*args):
            conversation.policy = _Dictating(policy, policy.chat.encode_text(self.text))
            replies = sample(*args)
            conversation.policy, conversation.reply = policy, sample
            return replies

        conversation.reply = reply
        return conversation


class _Dictating:
    def __init__(self, policy, ids):
        self.policy, self.ids = policy, iter(ids)

    def __getattr__(self, name):
        return getattr(self.policy, name)

    def logits(self, hidden):
        logits = self.policy.logits(hidden)
        if (dictated := next(self.ids, None)) is not None:
            only = torch.full_like(logits[::2], -torch.inf)
            only[:, dictated] = 0.0
            logits[::2] = only
        return logits


@pytest.fixture(scope="module")
def trajectories(family, policy):
    """Three turns of three questions with images of different sizes; half of the rows name a good box."""
    samples = [(make_question(image, f"q{i}"), image) for i, image in enumerate(IMAGES)]
    rows = roll_out(policy, Dictated(box_reply(family)), DIALOGUE, samples, 2, Sampling(max_new_tokens=40), (0, 0))
    assert {t.finding.box is None for t in rows} == {True, False}
    assert len({len(t.turns[0].reply.ids) for t in rows}) > 1
    return rows


def all_ids(trajectory: Trajectory) -> list[int]:
    return [i for turn in trajectory.turns for i in (*turn.prompt.ids, *turn.reply.ids)]


def all_images(trajectory: Trajectory) -> list[Any]:
    return [image for turn in trajectory.turns for image in turn.prompt.images]


def plain_scores(family, policy, trajectory):
    """Log-probs of the replies from one unpadded pass through the stock model, which places and masks by itself."""
    ids = torch.tensor([all_ids(trajectory)])
    images = all_images(trajectory)
    kinds = (ids == policy.chat.image_id).int()
    if family.gemma:
        shown = dict(pixel_values=torch.stack([image.patches for image in images]), token_type_ids=kinds)
    else:
        shown = dict(pixel_values=torch.cat([image.patches for image in images]), mm_token_type_ids=kinds)
        shown |= dict(image_grid_thw=torch.tensor([image.grid for image in images]))
    policy.model.model.rope_deltas = None
    logits = policy.model(input_ids=ids, use_cache=False, **shown).logits.masked_fill(policy.banned, -torch.inf)
    logprobs = F.log_softmax(logits[0, :-1], -1).gather(-1, ids[0, 1:, None])[:, 0]
    at, values = 0, []
    for turn in trajectory.turns:
        at += len(turn.prompt.ids)
        values.append(logprobs[at - 1 : at - 1 + len(turn.reply.ids)])
        at += len(turn.reply.ids)
    return torch.cat(values)


def test_images_equal_the_librarys(family, policy):
    """What the tower is given is what the family's own image processor makes of an image of that size."""
    image = View.whole(IMAGES[1].size, policy.sight.whole).pixels(IMAGES[1])
    theirs = policy.processor(image, do_resize=False, return_tensors="pt")
    assert torch.allclose(policy.pixels(image).patches, theirs["pixel_values"].squeeze(0), atol=1e-5)


def test_what_is_seen_has_the_familys_sizes(family, policy):
    for image in IMAGES:
        for resize in (policy.sight.whole, policy.sight.crop):
            assert all(side % family.factor == 0 for side in resize(image.size))
    if not family.gemma:
        own = type(policy)(policy.path, **dict.fromkeys(family.caps) if family.name != "qwen2_5_vl" else family.caps)
        assert own.sight_of(policy.processor).whole.max_pixels == 12 * family.factor**2


@pytest.mark.parametrize("reply", ["A cat.", "<think>\nHm.\n</think>\n\nA cat."])
def test_chat_ids_equal_the_template(policy, reply):
    """Turn 1 and two follow-ups, white space at the ends of texts included, against the tokenizer's own way."""
    pixels = lambda view: policy.pixels(view.pixels(IMAGES[0]))  # noqa: E731
    whole = View.whole(IMAGES[0].size, policy.sight.whole)
    crop = whole.crop((0, 0, 30, 40), policy.sight.crop)
    turns = [
        [Message("system", ("Be brief.",)), Message("user", (whole, "\nWhat is it? "))],
        [Message("user", ("Here is a part: ", crop, "\n\nSure?"))],
        [Message("user", ("  Really?\n",))],
    ]
    said = Reply((*policy.chat.encode_text(reply), policy.chat.end_id), (), "end")
    first = policy.chat.open(turns[0], pixels)
    after = [policy.chat.follow(turn, said, pixels) for turn in turns[1:]]
    for k in range(3):
        spoken = [s for turn in turns[: k + 1] for s in (*map(_spoken, turn), dict(role="assistant", content=reply))][
            :-1
        ]
        text = policy.tokenizer.apply_chat_template(
            spoken, tokenize=False, add_generation_prompt=True, enable_thinking=False
        )
        images = iter([image for prompt in (first, *after[:k]) for image in prompt.images])
        parts = text.split(policy.slot)
        text = parts[0] + "".join(policy.expand(next(images)) + part for part in parts[1:])
        expected = policy.tokenizer.encode(text, add_special_tokens=False)
        last = (first, *after)[k]
        assert next(images, None) is None
        assert list(last.ids) == expected[-len(last.ids) :]
        if k == 0:
            assert list(first.ids) == expected
        elif policy.chat.tokenizer.chat_template.count("<think>") == 0:
            # Templates of families that think leave out the thought, even an empty one, that a reply began with.
            shown = [first, *(prompt for prompt in after[:k])]
            assert [i for prompt in shown for i in (*prompt.ids, *said.ids)][: -len(said.ids)] == expected


def _spoken(message):
    content = [{"type": "text", "text": p} if isinstance(p, str) else {"type": "image"} for p in message.parts]
    return dict(role=message.role, content=content)


def test_an_end_that_was_not_sampled_is_shown(policy):
    cut = Reply(tuple(policy.chat.encode_text("A ca")), (), "length")
    ended = replace(cut, ids=(*cut.ids, policy.chat.end_id), stop="end")
    shown, rest = (policy.chat.follow([Message("user", ("Go on.",))], reply, None).ids for reply in (cut, ended))
    assert shown == (policy.chat.end_id, *rest)


def test_positions_equal_the_librarys_over_all_turns(family, policy, trajectories):
    for trajectory in trajectories:
        ids, at, pieces = torch.tensor([all_ids(trajectory)]), 0, []
        for turn in trajectory.turns:
            for piece in (turn.prompt, Prompt(turn.reply.ids)):
                placed, at = policy.positions(piece, at)
                pieces.append(placed)
        if family.gemma:
            expected = torch.arange(ids.shape[1]).expand(3, -1)
        else:
            grid = torch.tensor([image.grid for image in all_images(trajectory)])
            kinds = (ids == policy.chat.image_id).int()
            expected = policy.model.model.get_rope_index(input_ids=ids, mm_token_type_ids=kinds, image_grid_thw=grid)[
                0
            ][:, 0]
        assert torch.equal(torch.cat(pieces, 1), expected)


def test_sampler_trainer_and_stock_model_agree(family, policy, trajectories):
    batch = collate(trajectories, policy.positions, policy.pad_id)
    gaps = {"trainer": [0.0], **{f"sampler, turn {k}": [0.0] for k in (1, 2, 3)}}
    with torch.no_grad():
        trained = score(policy, batch).logprobs_NC
        for row, trajectory in enumerate(trajectories):
            plain = plain_scores(family, policy, trajectory)
            chosen = batch.policy_NC[row]
            gaps["trainer"].append((trained[row][chosen] - plain).abs().max().item())
            for k, turn in enumerate(trajectory.turns):
                if k or trajectory.finding.box is None:
                    own = plain[batch.turn_NC[row][chosen] == k]
                    gap = (own - torch.tensor(turn.reply.logprobs)).abs().max().item()
                    gaps[f"sampler, turn {k + 1}"].append(gap)
    assert max(map(max, gaps.values())) < 1e-4, gaps


def test_shared_prefixes_give_the_gradients_of_plain_rows(family, policy, trajectories):
    batch = collate(trajectories, policy.positions, policy.pad_id)
    weights = torch.randn(batch.ids_NC.shape, generator=torch.Generator().manual_seed(0))
    policy.zero_grad()
    (score(policy, batch).logprobs_NC * weights).sum().backward()
    shared = {name: p.grad.clone() for name, p in policy.named_parameters() if p.grad is not None}
    policy.zero_grad()
    for row, trajectory in enumerate(trajectories):
        (plain_scores(family, policy, trajectory) * weights[row][batch.policy_NC[row]]).sum().backward()
    assert shared.keys() == {name for name, p in policy.named_parameters() if p.grad is not None}
    assert any("vis" in name for name in shared)
    for name, p in policy.named_parameters():
        if p.grad is not None:
            assert (shared[name] - p.grad).abs().max() <= 1e-3 * (p.grad.abs().max() + 1e-3), name
    policy.zero_grad()


@pytest.mark.parametrize("turn", [0, 1])
def test_another_image_changes_the_logprobs_behind_it(policy, trajectories, turn):
    """Not blind in the training pass, to the picture of turn 1 and to the crop of turn 2."""
    trajectory = next(t for t in trajectories if t.finding.box)
    shown = trajectory.turns[turn]
    other = policy.pixels(trajectory.views[turn].pixels(noise_image(*trajectory.image.size, 9)))
    turns = list(trajectory.turns)
    turns[turn] = Turn(Prompt(shown.prompt.ids, (other,)), shown.reply, shown.text)
    changed = replace(trajectory, turns=turns)
    with torch.no_grad():
        batches = [collate([t], policy.positions, policy.pad_id) for t in (trajectory, changed)]
        before, after = (score(policy, b).logprobs_NC[b.policy_NC] for b in batches)
    first = len(trajectory.turns[0].reply.ids) if turn else 0
    assert torch.allclose(before[:first], after[:first], atol=1e-6)
    assert (before[first:] - after[first:]).abs().max() > 1e-3


def test_control_and_vision_tokens_are_never_sampled(policy, trajectories):
    banned = set(policy.banned.nonzero().flatten().tolist())
    names = {policy.slot, policy.image_token, *policy.marks} - {policy.chat.end}
    assert {policy.tokenizer.convert_tokens_to_ids(name) for name in names} <= banned
    assert policy.pad_id in banned and policy.chat.end_id not in banned
    assert len(policy.tokenizer) in banned  # the embedding has more rows
    assert not banned & set(policy.chat.encode_text("<think>\n\n\nIt is {1}.</think>"))
    for trajectory in trajectories:
        assert not any(banned & set(turn.reply.ids) for turn in trajectory.turns)


def test_control_tokens_in_a_question_are_text(policy):
    names = [policy.chat.end, policy.image_token, policy.slot]
    assert not {policy.tokenizer.convert_tokens_to_ids(n) for n in names} & set(policy.chat.encode_text("".join(names)))


def test_a_box_maps_to_the_same_original_pixels(family, policy):
    """A region named in the family's frame comes back, up to one input pixel for rounded numbers."""
    assert policy.sight.frame is family.frame
    region = (150, 80, 450, 240)
    view = View.whole((640, 320), policy.sight.whole)
    named = family.frame.from_pixels(view.to_input(region), view.size)
    found = find_box(f'{{"bbox_2d": {[round(n) for n in named]}}}', view.size, family.frame, BoxRule(min_side=8)).box
    back = view.to_original(found)
    pixel = max(640 / view.size[0], 320 / view.size[1])
    assert max(abs(a - b) for a, b in zip(back, region)) <= pixel


@pytest.mark.parametrize("missing", ["preprocessor_config.json", "tokenizer.json", "model.safetensors", "config.json"])
def test_a_missing_file_is_named(family, folder, policy, tmp_path, missing):
    copy = shutil.copytree(folder, tmp_path / "copy", ignore=lambda *_: [missing])
    named = "weights" if missing == "model.safetensors" else missing
    with pytest.raises(ValueError, match=rf"copy holds no readable .*{named}"):
        type(policy)(str(copy)).load()


def test_a_tokenizer_without_vision_tokens_is_refused(family, folder, policy, tmp_path):
    copy = shutil.copytree(folder, tmp_path / "copy")
    for name in ("tokenizer.json", "tokenizer_config.json"):
        text = (copy / name).read_text()
        (copy / name).write_text(text.replace(policy.marks[-1], policy.marks[-1].replace("e", "o")))
    with pytest.raises(ValueError, match=rf"lacks .*this is not a {policy.model_types[0]} checkpoint"):
        type(policy)(str(copy)).load()


def test_another_familys_checkpoint_is_refused_with_the_right_class(family, folder, policy):
    other = Gemma3 if family.name == "qwen2_5_vl" else Qwen25VL
    right = f"{type(policy).__module__}.{type(policy).__name__}"
    with pytest.raises(
        ValueError, match=rf"holds a {family.name} model; this policy needs \w+; take class_path {right}"
    ):
        other(str(folder)).load()


def test_a_model_of_no_family_is_refused(folder, tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "llava"}))
    with pytest.raises(ValueError, match=r"holds a llava model; .*no family here takes that"):
        Qwen25VL(str(tmp_path)).load()
    with pytest.raises(ValueError, match="holds a llava model; the families here are"):
        family_of(str(tmp_path))


def test_what_cannot_be_fetched_is_said_in_one_sentence(monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(ValueError, match="some/model is neither a folder nor a model of the hub") as error:
        Qwen25VL("some/model").load()
    assert "\n" not in str(error.value)
