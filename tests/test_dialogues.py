import pytest

from mgpo.boxes import REASONS
from mgpo.dialogues import SingleTurn, TwoTurn
from mgpo.dialogues.base import fill
from mgpo.policy.pixels import PixelBudget
from mgpo.types import Prompt, Reply, Trajectory, Turn
from mgpo.views import Frame, Sight, View
from tests.conftest import make_question, noise_image

SIGHT = Sight(Frame.PIXELS, PixelBudget(784, 112 * 112, 28), PixelBudget(784, 84 * 84, 28))
CHOICES = ("seven", "eight", "nine", "ten", "none of these")


def start(dialogue, choices=()):
    image = noise_image(448, 448)
    trajectory = Trajectory(make_question(image, choices=choices), image)
    return trajectory, dialogue.open(trajectory, SIGHT)


def say(trajectory, text):
    trajectory.turns.append(Turn(Prompt((1,)), Reply((2,), (0.0,), "end"), text))


def text_of(messages):
    return "".join(part for message in messages for part in message.parts if isinstance(part, str))


def test_the_first_turn_hides_the_choices_and_the_second_shows_them():
    dialogue = TwoTurn()
    trajectory, messages = start(dialogue, CHOICES)
    assert "seven" not in text_of(messages)
    assert [message.role for message in messages] == ["system", "user"]
    say(trajectory, '[{"bbox_2d": [0, 0, 56, 56]}]')
    second = text_of(dialogue.proceed(trajectory, SIGHT))
    assert "\n(A) seven\n(B) eight" in second


def test_a_valid_box_is_cut_from_the_original():
    dialogue = TwoTurn()
    trajectory, _ = start(dialogue)
    say(trajectory, '[{"bbox_2d": [28, 0, 84, 56]}]')
    (message,) = dialogue.proceed(trajectory, SIGHT)
    (view,) = [part for part in message.parts if isinstance(part, View)]
    assert view.region == (112, 0, 336, 224)
    assert trajectory.views[1] is view
    say(trajectory, r"\boxed{K}")
    assert dialogue.proceed(trajectory, SIGHT) is None
    assert trajectory.answer == "K"


@pytest.mark.parametrize(("text", "reason"), [("nothing", "no_box"), ("[56, 56, 0, 0]", "inverted")])
def test_an_invalid_box_shows_the_whole_again_and_says_why(text, reason):
    dialogue = TwoTurn()
    trajectory, _ = start(dialogue)
    say(trajectory, text)
    (message,) = dialogue.proceed(trajectory, SIGHT)
    assert trajectory.views[1] == trajectory.views[0]
    assert REASONS[reason] in text_of([message])
    assert trajectory.finding.reason == reason


def test_questions_are_not_searched_for_slots():
    image = noise_image(112, 112)
    question = make_question(image)
    object.__setattr__(question, "text", "What does {choices} {image} {0} mean?")
    trajectory = Trajectory(question, image)
    messages = TwoTurn().open(trajectory, SIGHT)
    assert "{choices} {image} {0}" in text_of(messages)
    assert len(trajectory.views) == 1


def test_single_turn_judges_the_box_and_ends():
    dialogue = SingleTurn()
    trajectory, messages = start(dialogue, CHOICES)
    assert "(B) eight" in text_of(messages)
    say(trajectory, '[{"bbox_2d": [0, 0, 56, 56]}] \\boxed{B}')
    assert dialogue.proceed(trajectory, SIGHT) is None
    assert trajectory.answer == "B"
    assert trajectory.finding.box == (0, 0, 56, 56)
    assert len(trajectory.views) == 1


def test_texts_are_configuration():
    trajectory, messages = start(TwoTurn(system="S", ask_box="{image}Where? {question}"))
    assert text_of(messages) == "SWhere? Which letter stands on the red mark?"


def test_a_text_that_shows_a_missing_image_is_refused():
    with pytest.raises(ValueError, match="shows an image"):
        fill("{image}", make_question(noise_image(56, 56)))
