"""The audit: every kind catches the cheat that it is for, boxes stay as they were, and margins say the same."""

import json
from dataclasses import replace
from functools import partial

import pytest

import mgpo
from mgpo.data import Scenes
from mgpo.dialogues import BlindAnswer, FreeTurns, TwoTurn
from mgpo.evaluation.audit import KINDS, Audited, add_margins, audit_batch
from mgpo.evaluation.audit_summary import row_of, summarise
from mgpo.evaluation.counterfactuals import answered_again
from mgpo.evaluation.part_dialogues import LastTurn
from mgpo.evaluation.swaps import black
from mgpo.inference.client import NoReply
from mgpo.rewards import ExactAnswer
from mgpo.rollout.episodes import ANSWER_FORM, roll_out
from mgpo.rollout.in_process import InProcessSampler, Sampling
from mgpo.types import Reply
from tests.conftest import MemoryPicture
from tests.helpers.cheats import Cheat, from_crop, from_picture, known, picture, questions

GREEDY = Sampling(max_new_tokens=32, temperature=0)
WHOLE = ("original", "no tools")  # kinds in which nothing is cut out


def audited(model, dialogue=None, reward=ExactAnswer(), rollouts=2, samples=None, **options):
    samples = samples or [(q, q.picture.load()) for q in questions()]
    return audit_batch(
        model.play,
        model.resolution,
        dialogue or model.dialogue,
        samples,
        GREEDY,
        reward,
        0,
        rollouts=rollouts,
        **options,
    )


def accuracies(model, **options):
    found = summarise([row_of(one) for one in audited(model, **options)])
    return {kind: numbers["accuracy"] for kind, numbers in found["kinds"].items()}, found


def test_who_needs_no_picture_loses_nothing():
    right, found = accuracies(Cheat(known))
    kinds = [kind for kind in KINDS if kind != "distractor"]
    assert {kind: right[kind] for kind in kinds} == dict.fromkeys(kinds, 1.0) and right["crop"] == 1
    assert all(found["kinds"][kind]["drop"] == 0 == found["kinds"][kind]["gain"] for kind in kinds)
    assert all(found["kinds"][kind]["same"] == 1 for kind in kinds)
    assert found["kinds"]["distractor"]["left_out"] == {"the other part gives the right answer": 4}
    assert found["rates"]["without_tools"]["share"] == 1


def test_who_reads_the_crop_alone_needs_its_pixels_and_no_picture():
    right, found = accuracies(Cheat(from_crop))
    without = ("black", "noise", "another picture", "distractor", *WHOLE)
    assert [right[kind] for kind in without] == [0.0] * len(without)
    still = ("crop", "enlarged", "crop alone", "picture black", "last turn alone", "not asked")
    assert [right[kind] for kind in still] == [1.0] * len(still)
    assert found["rates"]["wrong_reason"] == {
        "n": 4,
        "count": 0,
        "share": 0.0,
        "interval": pytest.approx((0, 0.49), abs=0.01),
    }
    assert found["rates"]["without_tools"]["share"] == 0


def test_who_answers_from_the_picture_is_caught_where_it_is_black():
    right, _ = accuracies(Cheat(from_picture))
    blind = ("picture black", "last turn alone", "crop alone")
    # An answer from the upper left quarter of a crop of one colour is right as well.
    assert right["picture black"] == 0 and right["last turn alone"] == right["crop alone"] == 1
    assert all(right[kind] == 1 for kind in KINDS if kind not in blind)


def test_right_although_the_crop_alone_is_not():
    """The box lies on the other patch, and the picture tells the answer."""
    model = Cheat(lambda images, text: from_picture(images, text) if len(images) > 1 else from_crop(images, text))
    elsewhere = partial(model._reply)
    model._reply = lambda history, sampling, seed, stop: elsewhere(
        history, Sampling(temperature=0.0 if sampling.temperature else 1.0), seed, stop
    )
    right, found = accuracies(model)
    assert right["crop"] == 1 and right["crop alone"] == 0
    assert found["rates"]["wrong_reason"]["share"] == 1
    assert found["kinds"]["distractor"]["left_out"] == {"the other part gives the right answer": 4}


def test_whoever_takes_what_it_is_shown_takes_the_distractors_answer():
    found = audited(Cheat(from_crop))
    assert [one.distractor for one in found] == ["G", "B", "Y", "R"]
    assert [one.again["distractor"].answer for one in found] == ["G", "B", "Y", "R"]
    assert summarise([row_of(one) for one in found])["rates"]["distractor_taken"]["share"] == 1


def test_a_distractor_that_picks_no_option_can_not_be_taken():
    """Nor is it by whoever answers nothing."""
    found = audited(Cheat(from_crop), kinds=("distractor",))
    for one in found:
        one.trajectory.question = replace(one.trajectory.question, choices=("red", "green"), answer="A")
        one.again["distractor"].answer = None
    found[0].distractor = "B"
    taken = [row_of(one)["distractor_taken"] for one in found]
    assert [one.distractor for one in found] == ["B", "B", "Y", "R"] and taken == [False, False, None, None]


def test_without_another_part_there_is_no_distractor_and_that_is_counted():
    model = Cheat(from_crop)
    sample = model._reply
    model._reply = lambda history, sampling, seed, stop: sample(history, GREEDY, seed, stop)
    right, found = accuracies(model)
    assert right["distractor"] is None
    assert found["kinds"]["distractor"]["left_out"] == {"no other rollout looks elsewhere": 4}


def test_boxes_are_asked_for_once_and_stay_the_same():
    model = Cheat(from_crop)
    found = audited(model, rollouts=3)
    assert model.boxes == 4 * (1 + 3)
    for one in found:
        regions = [view.region for view in one.trajectory.crops]
        for kind in ("black", "original", "distractor", "picture black"):
            assert [view.region for view in one.again[kind].crops] == regions


def test_a_crop_that_was_followed_by_a_refused_box_is_still_what_the_last_turn_shows():
    model, boxes = Cheat(from_crop), ([0, 0, 56, 56], [0, 0, 5, 5])
    answered = model._reply

    def reply(history, sampling, seed, stop_text):
        said = sum(message["role"] == "assistant" for message in history)
        if stop_text is None or said == 2:
            return answered(history, sampling, seed, None)
        return f'```json\n[{{"bbox_2d": {boxes[said]}}}\n]\n```', Reply((), (), "marker")

    model._reply = reply
    found = audited(model, dialogue=FreeTurns(3))
    assert [len(one.trajectory.turns) for one in found] == [3] * 4
    for kind, right in {"black": False, "last turn alone": True, "not asked": True, "no tools": False}.items():
        assert [one.again[kind].right for one in found] == [right] * 4, kind


def naming(model, box, **more):
    """The model, which names this box whatever it is asked."""
    answered = model._reply

    def reply(history, sampling, seed, stop_text):
        text, said = answered(history, sampling, seed, stop_text)
        named = [{"bbox_2d": box, "label": "patch", **more}]
        return (text if stop_text is None else f"```json\n{json.dumps(named)[:-1]}\n]\n```"), said

    model._reply = reply
    return model


def test_a_crop_of_the_whole_picture_is_a_crop():
    """Seen at the size of the picture itself it is what becomes black, or stays while that does."""
    model = naming(Cheat(lambda images, text: from_picture(images[-1:], text)), [0, 0, 224, 224])
    found = audited(model, kinds=("black", "noise", "picture black"))
    assert all(one.trajectory.crops == one.trajectory.wholes and one.trajectory.right for one in found)
    for kind, right in {"black": False, "noise": False, "picture black": True}.items():
        assert [one.again[kind].right for one in found] == [right] * 4, kind


def test_a_crop_of_another_than_the_first_picture_is_shown_in_every_kind():
    second = MemoryPicture(picture("B", "R"))
    samples = [(replace(q, others=(second,)), q.picture.load(), second.load()) for q in questions()]
    found = audited(naming(Cheat(from_crop), [0, 0, 56, 56], picture=2), samples=samples)
    for one in found:
        for kind in ("last turn alone", "not asked", "crop alone", "picture black"):
            assert one.again[kind].answer == "B", kind


def test_another_picture_is_none_of_the_questions_own():
    q, *rest = questions()
    own = rest[0].picture
    both = (replace(q, others=(own,)), q.picture.load(), own.load())
    found = audited(Cheat(from_crop), samples=[both, (rest[0], own.load())], kinds=("another picture",))
    assert [bool(one.swaps) for one in found] == [False, True]


def test_the_last_turn_is_that_of_its_own_question_where_ids_are_the_same():
    """As those of two sources may be."""
    found = audited(Cheat(known), samples=[(replace(q, id="q"), q.picture.load()) for q in questions()])
    assert all(one.again[kind].right for one in found for kind in ("last turn alone", "not asked"))


def test_the_last_turn_of_a_blind_answer_is_shown_word_for_word(base, samples):
    dialogue = BlindAnswer(rule=base.dialogue.rule)
    played = [t for t in base.play(dialogue, samples, 1, GREEDY, (0, 0)) if t.crops]
    alone = LastTurn(dialogue, played, picture=False)
    again = base.play(alone, [t.asked for t in played], 1, GREEDY, (0, 0))
    assert played and [t.turns[0].prompt.ids for t in again] == [t.turns[1].prompt.ids for t in played]
    assert [t.turns[0].text for t in again] == [t.turns[1].text for t in played]


def test_why_a_crop_was_not_asked_alone_is_told_as_the_server_told_it():
    model = Cheat(from_crop)
    answered = model._reply

    def reply(history, sampling, seed, stop_text):
        if stop_text is None and str(history).count("image_url'") == 2:
            raise NoReply("the server answers 500")
        return answered(history, sampling, seed, stop_text)

    model._reply = reply
    found = audited(model, kinds=("distractor", "crop alone"))
    assert [one.left_out for one in found] == [
        dict.fromkeys(("distractor", "crop alone"), "the server answers 500")
    ] * 4


def test_questions_that_share_their_picture_are_no_others():
    shared = [(q, q.picture.load()) for q in questions()[:1]] * 2
    (one, _) = audited(Cheat(from_crop), samples=shared)
    assert "another picture" not in one.again and "no other picture" in one.left_out["another picture"]


@pytest.fixture(scope="module")
def base():
    return mgpo.load()


@pytest.fixture(scope="module")
def samples():
    source = Scenes(6, ("attribute", "counting"), "val", side=640)
    return [(question, question.picture.load()) for question in (source[i] for i in range(6))]


def test_replies_that_are_taken_are_as_good_as_sampled(base, samples):
    """In process: what follows a box that was taken is what follows it when it is sampled."""
    played = base.play(base.dialogue, samples, 1, GREEDY, (0, 0))
    assert {bool(t.crops) for t in played} == {True, False}
    again = answered_again(base.play, base.dialogue, played, [black] * len(played), GREEDY, (0, 0))
    afresh = base.play(base.dialogue, samples, 1, GREEDY, (0, 0), swap=black)
    assert [[turn.text for turn in t.turns] for t in again] == [[turn.text for turn in t.turns] for t in afresh]
    for one, other in zip(again, afresh):
        assert one.turns[-1].reply.logprobs == pytest.approx(other.turns[-1].reply.logprobs, abs=1e-4)


def test_margins_of_several_looks_are_told_one_by_one(base, samples):
    """Those of looks that were refused are not."""
    play = partial(roll_out, base.policy, InProcessSampler())
    dialogue = TwoTurn(turns=3, rule=base.dialogue.rule)
    rolled = [t for t in play(dialogue, samples, 4, Sampling(max_new_tokens=32), (0, 0)) if t.crops]
    found = [Audited(trajectory) for trajectory in rolled]
    add_margins(base.policy, found, ANSWER_FORM)
    assert {len(one.trajectory.crops) for one in found} == {1, 2}
    for one in found:
        assert len(one.margins) == (2 if len(one.trajectory.crops) == 2 else 0)
        assert one.margin == pytest.approx(sum(one.margins or [one.margin]), abs=1e-6)


def test_a_policy_that_is_blind_to_its_crops_has_no_margin(base, samples, monkeypatch):
    looked = [one for one in audited(base, samples=samples, kinds=("black",)) if one.trajectory.crops]
    add_margins(base.policy, looked, ANSWER_FORM)
    assert max(one.margin for one in looked) > 1
    features = base.policy.features
    monkeypatch.setattr(base.policy, "features", lambda images: features(images) * 0)
    add_margins(base.policy, looked, ANSWER_FORM)
    assert [one.margin for one in looked] == pytest.approx([0] * len(looked), abs=1e-4)


class Elsewhere(Cheat):
    """Looks in the first of two pictures, or when it is drawn in the second."""

    def _reply(self, history, sampling, seed, stop_text):
        text, reply = super()._reply(history, sampling, seed, stop_text)
        return text.replace('"label"', '"picture": 2, "label"') if sampling.temperature else text, reply


def test_a_distractor_in_another_picture_is_cut_from_that():
    pairs = [(q, picture(q.answer, other)) for q, other in zip(questions(), "GBYR")]
    samples = [
        (replace(q, others=(MemoryPicture(second := picture("R", "Y" if q.answer == "G" else "G")),)), first, second)
        for q, first in pairs
    ]
    found = audited(Elsewhere(from_crop), samples=samples, kinds=("distractor",))
    assert [one.distractor for one in found] == ["G", "Y", "G", "G"]
    assert [one.again["distractor"].answer for one in found] == ["G", "Y", "G", "G"]
