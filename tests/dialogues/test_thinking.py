"""Templates that begin a thought in front of every reply: it is noticed at load, and ids stay what was sampled."""

import json
import shutil

import pytest
from transformers import AutoTokenizer

from mgpo.dialogues import SingleTurn, TwoTurn
from mgpo.policy.hub.checkpoint_files import family_of
from mgpo.rollout.episodes import force_answers, roll_out
from mgpo.rollout.in_process import InProcessSampler, Sampling
from mgpo.tools.doctor.case import _Dictator
from mgpo.types import Message, Prompt, Reply, Trajectory, Turn
from tests.conftest import make_question, noise_image
from tests.helpers.families import ALL, CHATML, THINKING, save_checkpoint

ALWAYS = CHATML.replace("<|im_start|>assistant\n' }}", "<|im_start|>assistant\n<think>\n' }}")
IMAGE = noise_image(300, 200)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    family = next(family for family in ALL if family.name == "qwen3_vl")
    return save_checkpoint(family, tmp_path_factory.mktemp("thinking"))


def loaded(folder, template, special=False):
    """The checkpoint under another template, with marks of thoughts that may be special tokens."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.chat_template = template
    if special:
        tokenizer.add_special_tokens({"additional_special_tokens": ["<think>", "</think>"]})
    tokenizer.save_pretrained(folder)
    return family_of(str(folder))(str(folder)).load().eval()


@pytest.fixture
def thinker(folder):
    return loaded(folder, ALWAYS)


@pytest.mark.parametrize(
    ("template", "tag"),
    [
        (ALWAYS, "</think>"),
        (ALWAYS.replace("<think>", "[THINK]"), "[/THINK]"),
        (ALWAYS.replace("<think>\n", "<think>\n\n</think>\n\n"), ""),
        (CHATML, ""),
        (THINKING, ""),  # has the switch enable_thinking, which is off
        ("{{ '<|im_start|>system\nThink in <think>.<|im_end|>\n' }}" + CHATML, ""),
    ],
)
def test_an_open_thought_in_front_of_replies_is_noticed(folder, template, tag):
    assert loaded(folder, template).chat.closing == tag


def play(policy, dialogue, tokens=6, image=IMAGE):
    question = make_question(image, choices=("red", "blue"))
    return roll_out(policy, InProcessSampler(), dialogue, [(question, image)], 2, Sampling(tokens), (0, 0))


def test_ids_are_those_that_are_sampled_and_nothing_is_said_in_an_open_thought(thinker, monkeypatch):
    played = play(thinker, TwoTurn())
    for trajectory in played:
        assert all(turn.opened and turn.said == "" for turn in trajectory.turns) and trajectory.answer is None
        assert all(thinker.chat.decode(turn.prompt.ids).endswith("<think>\n") for turn in trajectory.turns)
    monkeypatch.setattr(thinker.chat, "closing", "")
    for one, other in zip(played, play(thinker, TwoTurn()), strict=True):
        assert [(t.prompt.ids, t.reply) for t in one.turns] == [(t.prompt.ids, t.reply) for t in other.turns]


def test_a_thought_stays_in_what_a_later_turn_goes_on_from(thinker):
    """Nothing of a reply is encoded anew: what follows is the same behind a thought and behind none."""
    shown = [
        thinker.chat.follow([Message("user", ("Go on.",))], Reply((*ids, thinker.chat.end_id), (), "end"), None).ids
        for ids in (thinker.chat.encode_text("Hm.\n</think>\n\nA cat."), thinker.chat.encode_text("A cat."))
    ]
    assert shown[0] == shown[1]


def test_what_is_taught_stands_behind_the_thought(thinker):
    question = make_question(IMAGE, answer="B", choices=("red", "blue"))
    for opened, text in ((True, "\n</think>\n\n\\boxed{B}"), (False, "\\boxed{B}")):
        taught = Trajectory(question, IMAGE, [Turn(Prompt(()), Reply((1,), (0.0,), "end"), "?", opened=opened)])
        force_answers(thinker, [taught], "\\boxed{{answer}}")
        (turn,) = taught.turns
        assert turn.text == text and turn.said.strip() == "\\boxed{B}"
        assert thinker.chat.decode(turn.reply.ids) == text


def test_a_dictated_box_stands_behind_the_thought(thinker):
    text = json.dumps([{"bbox_2d": [100, 100, 900, 900]}])
    question = make_question(IMAGE)
    (played,) = roll_out(thinker, _Dictator(lambda: text), SingleTurn(), [(question, IMAGE)], 1, Sampling(4), (0, 0))
    assert played.turns[0].said == text and played.parsed_box.box is not None


def test_a_thought_can_be_closed_where_its_marks_are_special_tokens(folder, tmp_path):
    policy = loaded(shutil.copytree(folder, tmp_path / "special"), ALWAYS, special=True)
    closing = policy.tokenizer.convert_tokens_to_ids("</think>")
    assert policy.chat.ids["</think>"] == closing and not policy.banned[closing]
    assert policy.banned[policy.tokenizer.convert_tokens_to_ids("<|im_start|>")]
    assert closing not in policy.chat.encode_text("</think>")  # that a question holds
