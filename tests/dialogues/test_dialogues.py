"""What the dialogues ask, show and take for an answer."""

from dataclasses import replace

import pytest

from mgpo.dialogues import (
    BlindAnswer,
    Enlarged,
    FreeTurns,
    PlainCut,
    SingleTurn,
    Turned,
    TwoTurn,
    WithMargin,
    answer_only,
)  # fmt: skip
from mgpo.dialogues.asked import begins_anew
from mgpo.dialogues.base import fill
from mgpo.images.boxes import REASONS, BoxRule
from mgpo.images.views import Frame, View, VisionResolution
from mgpo.metrics.record import record_of
from mgpo.types import Trajectory
from tests.conftest import make_question, noise_image
from tests.helpers.talks import CHOICES, RESOLUTION, say, start, text_of


def test_the_first_turn_hides_the_choices_and_the_second_shows_them():
    dialogue = TwoTurn()
    trajectory, messages = start(dialogue, CHOICES)
    assert "seven" not in text_of(messages)
    assert [message.role for message in messages] == ["system", "user"]
    say(trajectory, '[{"bbox_2d": [0, 0, 56, 56]}]')
    second = text_of(dialogue.proceed(trajectory, RESOLUTION))
    assert "\n(A) seven\n(B) eight" in second


def test_a_valid_box_is_cut_from_the_original():
    dialogue = TwoTurn()
    trajectory, _ = start(dialogue)
    say(trajectory, '[{"bbox_2d": [28, 0, 84, 56]}]')
    (message,) = dialogue.proceed(trajectory, RESOLUTION)
    (view,) = [part for part in message.parts if isinstance(part, View)]
    assert view.region == (112, 0, 336, 224)
    assert trajectory.views[1] is view
    say(trajectory, r"\boxed{K}")
    assert dialogue.proceed(trajectory, RESOLUTION) is None
    assert trajectory.answer == "K"


@pytest.mark.parametrize(("text", "reason"), [("nothing", "no_box"), ("[56, 56, 0, 0]", "inverted")])
def test_an_invalid_box_shows_the_whole_again_and_says_why(text, reason):
    dialogue = TwoTurn()
    trajectory, _ = start(dialogue)
    say(trajectory, text)
    (message,) = dialogue.proceed(trajectory, RESOLUTION)
    assert trajectory.views[1] == trajectory.views[0]
    assert REASONS[reason] in text_of([message])
    assert trajectory.parsed_box.reason == reason


def test_questions_are_not_searched_for_slots():
    image = noise_image(112, 112)
    question = make_question(image)
    object.__setattr__(question, "text", "What does {choices} {image} {0} mean?")
    trajectory = Trajectory(question, image)
    messages = TwoTurn().open(trajectory, RESOLUTION)
    assert "{choices} {image} {0}" in text_of(messages)
    assert len(trajectory.views) == 1


def test_single_turn_judges_the_box_and_ends():
    dialogue = SingleTurn()
    trajectory, messages = start(dialogue, CHOICES)
    assert "(B) eight" in text_of(messages)
    say(trajectory, '[{"bbox_2d": [0, 0, 56, 56]}] \\boxed{B}')
    assert dialogue.proceed(trajectory, RESOLUTION) is None
    assert trajectory.answer == "B"
    assert trajectory.parsed_box.box == (0, 0, 56, 56)
    assert len(trajectory.views) == 1


def test_texts_are_configuration():
    trajectory, messages = start(TwoTurn(system="S", ask_box="{image}Where? {question}"))
    assert text_of(messages) == "SWhere? Which letter stands on the red mark?"


@pytest.mark.parametrize("dialogue", [TwoTurn(), SingleTurn(), FreeTurns()])
def test_a_box_is_asked_for_in_the_units_in_which_it_is_read(dialogue):
    image = noise_image(448, 448)
    asked = {}
    for frame in Frame:
        trajectory = Trajectory(make_question(image), image)
        asked[frame] = text_of(dialogue.open(trajectory, replace(RESOLUTION, frame=frame)))
    assert "in pixels of this picture: " in asked[Frame.PIXELS]
    assert "from 0 to 1000: " in asked[Frame.THOUSAND] and "from 0 to 1: " in asked[Frame.UNIT]


@pytest.mark.parametrize("box", ["[100, 100, 500, 500]", "none"])
def test_later_texts_have_the_units_too(box):
    texts = dict(look_again="{image}In {units}.", name_again="{image}In {units}.")
    show = dict(show="{image}In {units}.", refuse="In {units}.")
    blind = BlindAnswer(ask_answer="{image}{question}{choices}{units}", refuse="{question}{choices}{units}")
    for dialogue in (TwoTurn(turns=3, **texts), FreeTurns(**show), blind):
        image, resolution = noise_image(448, 448), replace(RESOLUTION, frame=Frame.THOUSAND)
        trajectory = Trajectory(make_question(image), image)
        dialogue.open(trajectory, resolution)
        say(trajectory, f'[{{"bbox_2d": {box}}}]')
        assert "from 0 to 1000" in text_of(dialogue.proceed(trajectory, resolution))


def test_a_text_that_shows_a_missing_image_is_refused():
    with pytest.raises(ValueError, match="shows an image"):
        fill("{image}", make_question(noise_image(56, 56)))


def test_a_third_turn_looks_again_in_the_first_picture():
    dialogue = TwoTurn(turns=3)
    trajectory, _ = start(dialogue, CHOICES)
    say(trajectory, "[28, 0, 84, 56]")
    middle = dialogue.proceed(trajectory, RESOLUTION)
    assert "seven" not in text_of(middle)
    say(trajectory, "[0, 0, 56, 56]")
    last = dialogue.proceed(trajectory, RESOLUTION)
    assert "(A) seven" in text_of(last)
    assert [view.region for view in trajectory.crops] == [(112, 0, 336, 224), (0, 0, 224, 224)]
    say(trajectory, r"\boxed{A}")
    assert dialogue.proceed(trajectory, RESOLUTION) is None
    assert [dialogue.stop_text(turn) is None for turn in range(3)] == [False, False, True]


def test_an_invalid_second_look_falls_back_on_the_first():
    dialogue = TwoTurn(turns=3)
    trajectory, _ = start(dialogue)
    say(trajectory, "[28, 0, 84, 56]")
    dialogue.proceed(trajectory, RESOLUTION)
    say(trajectory, "nothing")
    (message,) = dialogue.proceed(trajectory, RESOLUTION)
    (view,) = [part for part in message.parts if isinstance(part, View)]
    assert view.region == (112, 0, 336, 224)
    assert len(trajectory.crops) == 1


def test_a_box_around_everything_is_a_crop_all_the_same():
    dialogue, resolution = TwoTurn(), VisionResolution(Frame.PIXELS, RESOLUTION.full, RESOLUTION.full)
    trajectory, _ = start(dialogue)
    say(trajectory, "[0, 0, 112, 112]")
    (message,) = dialogue.proceed(trajectory, resolution)
    assert "Here is that part" in text_of([message])


@pytest.mark.parametrize(
    ("dialogue", "replies", "actions"),
    [
        (TwoTurn(), ["[0, 0, 56, 56]", r"\boxed{K}"], ["look", "answer"]),
        (TwoTurn(), ["there", "I see none."], ["look refused", "nothing"]),
        (TwoTurn(turns=3), ["[56, 56, 0, 0]", "[0, 0, 56, 56]", r"\boxed{K}"], ["look refused", "look", "answer"]),
        (BlindAnswer(), ["[0, 0, 56, 56]", r"\boxed{K}"], ["look", "answer"]),
        (BlindAnswer(), ["there", "I see none."], ["look refused", "nothing"]),
        (SingleTurn(), [r"[0, 0, 56, 56] \boxed{K}"], ["answer"]),
        (SingleTurn(), ["[0, 0, 56, 56]"], ["nothing"]),
        (FreeTurns(3), ["[0, 0, 56, 56]", "I wonder.", r"\boxed{K}"], ["look", "look refused", "answer"]),
        (FreeTurns(2), ["[0, 0, 56, 56]", "[0, 0, 56, 56]"], ["look", "look refused"]),
        (FreeTurns(1), ["I do not know."], ["nothing"]),
    ],
)
def test_a_turn_says_what_its_reply_did(dialogue, replies, actions):
    trajectory, _ = start(dialogue)
    for k, text in enumerate(replies):
        say(trajectory, text)
        assert trajectory.turns[-1].action is None
        going_on = dialogue.proceed(trajectory, RESOLUTION)
        assert (going_on is None) == (k == len(replies) - 1)
    assert [turn.action for turn in trajectory.turns] == actions
    assert record_of(trajectory).fallback == ("look refused" in actions[:-1])


@pytest.mark.parametrize("share", [-0.1, float("inf"), float("nan")])
def test_a_margin_is_a_share(share):
    with pytest.raises(ValueError, match=r"dialogue\.cut\.share is .*a share of the box from 0 on"):
        WithMargin(share)


def test_a_margin_surrounds_the_box_as_far_as_the_picture_goes():
    """Half of its sides at each end: in pixels of the picture, whose left edge is near."""
    dialogue = TwoTurn(cut=WithMargin(0.5))
    trajectory, _ = start(dialogue)
    say(trajectory, '[{"bbox_2d": [14, 26, 56, 58]}]')
    dialogue.proceed(trajectory, RESOLUTION)
    assert trajectory.views[1].region == (0, 40, 308, 296)
    assert trajectory.turns[0].named == (56, 104, 224, 232)


def test_a_part_may_be_turned_or_enlarged():
    """Either shows the same pixels of the original: turned, or as if there were more of them."""
    first = View.full((400, 400), lambda size: size)
    box, sizes = (100, 120, 140, 200), VisionResolution(Frame.PIXELS, lambda size: size, lambda size: size)
    plain, turned, large = (cut(first, box, sizes) for cut in (PlainCut(), Turned(1), Enlarged(2.5)))
    assert plain.region == turned.region == large.region == (100, 120, 140, 200)
    assert (plain.size, turned.size, large.size) == ((40, 80), (80, 40), (100, 200))
    assert large.to_original((50, 100, 100, 200)) == (120, 160, 140, 200)
    capped = VisionResolution(Frame.PIXELS, lambda size: size, lambda size: (min(size[0], 64), min(size[1], 64)))
    assert Enlarged(9)(first, box, capped).size == (64, 64)
    with pytest.raises(ValueError, match=r"dialogue\.cut\.scale is 0\.5"):
        Enlarged(0.5)


def test_a_blind_answer_is_asked_of_the_crop_alone():
    """In the very words in which a sub-image is asked whether it answers the question alone."""
    dialogue, choices = BlindAnswer(), ("K", "M")
    trajectory, first = start(dialogue, choices)
    assert text_of(first) == text_of(start(TwoTurn(), choices)[1])
    say(trajectory, "[0, 0, 56, 56]")
    messages = dialogue.proceed(trajectory, RESOLUTION)
    assert begins_anew(messages)
    assert [part for m in messages for part in m.parts if isinstance(part, View)] == trajectory.crops
    assert text_of(messages) == text_of(start(answer_only(), choices)[1])


def test_a_blind_answer_sees_nothing_where_nothing_is_cut_out():
    dialogue = BlindAnswer()
    trajectory, _ = start(dialogue, ("K", "M"))
    say(trajectory, "[56, 56, 0, 0]")
    messages = dialogue.proceed(trajectory, RESOLUTION)
    assert begins_anew(messages) and all(isinstance(part, str) for m in messages for part in m.parts)
    assert REASONS[trajectory.parsed_box.reason] in text_of(messages) and "(B) M" in text_of(messages)
    assert len(trajectory.views) == 1


def test_fewer_than_two_turns_are_refused():
    with pytest.raises(ValueError, match="turns is 1"):
        TwoTurn(turns=1)
    with pytest.raises(ValueError, match="turns is 0"):
        FreeTurns(turns=0)


def test_a_text_may_say_the_size_at_which_the_picture_is_seen():
    ask = "{image}{question}{choices} The picture is {width} x {height}; answer in {units}."
    for dialogue in (TwoTurn(ask_box=ask), SingleTurn(ask=ask), FreeTurns(ask=ask)):
        trajectory, messages = start(dialogue)
        assert trajectory.image.size == (448, 448)
        assert "The picture is 112 x 112; answer in pixels" in text_of(messages)


def test_the_size_is_that_of_the_picture_in_which_boxes_are_named():
    two = TwoTurn(turns=3, look_again="{image}{width} x {height}", name_again="{image}{width} x {height}!")
    trajectory, _ = start(two)
    say(trajectory, "[28, 0, 84, 56]")
    assert text_of(two.proceed(trajectory, RESOLUTION)) == "112 x 112"
    free = FreeTurns(turns=4, show="{image}{width} x {height}", refuse="{width} x {height}!", go_on="")
    trajectory, _ = start(free)
    say(trajectory, "[28, 0, 84, 56]")
    assert text_of(free.proceed(trajectory, RESOLUTION)) == "84 x 84"
    say(trajectory, "[0, 0, 1, 1]")
    assert text_of(free.proceed(trajectory, RESOLUTION)) == "112 x 112!"


def test_a_text_without_a_size_or_units_to_tell_keeps_its_slots():
    assert fill("{width} {units}", make_question(noise_image(56, 56))) == ("{width} {units}",)


@pytest.mark.parametrize("make", [TwoTurn, FreeTurns])
def test_a_box_past_the_edge_is_cut_out_as_far_as_it_lies_in_the_picture(make):
    for clip in (True, False):
        dialogue = make(rule=BoxRule(clip=clip))
        trajectory, _ = start(dialogue)
        say(trajectory, '[{"bbox_2d": [56, 56, 120, 400]}]')
        dialogue.proceed(trajectory, RESOLUTION)
        assert [view.region for view in trajectory.crops] == ([(224, 224, 448, 448)] if clip else [])
        record = record_of(trajectory)
        assert (record.valid_box, record.clipped) == ((True, True) if clip else (False, None))
        assert trajectory.turns[0].named == (224, 224, 480, 1600)


def test_a_reply_that_is_the_right_answer_is_its_own_answer():
    dialogue = SingleTurn(judge_box=False)
    image = noise_image(448, 448)
    for text, answer in (("unknown", "unknown"), ("<think>hm</think> unknown\n", "unknown"), ("unclear", None)):
        trajectory = Trajectory(make_question(image, answer="unknown"), image)
        dialogue.open(trajectory, RESOLUTION)
        say(trajectory, text)
        dialogue.proceed(trajectory, RESOLUTION)
        assert trajectory.answer == answer
