"""Conversations without a policy: what a dialogue asks, and replies that somebody wrote."""

from mgpo.images.views import Frame, VisionResolution
from mgpo.policy.families.qwen_pixels import PixelBudget
from mgpo.types import Prompt, Reply, Trajectory, Turn
from tests.conftest import make_question, noise_image

RESOLUTION = VisionResolution(Frame.PIXELS, PixelBudget(784, 112 * 112, 28), PixelBudget(784, 84 * 84, 28))
CHOICES = ("seven", "eight", "nine", "ten", "none of these")


def start(dialogue, choices=()):
    image = noise_image(448, 448)
    trajectory = Trajectory(make_question(image, choices=choices), image)
    return trajectory, dialogue.open(trajectory, RESOLUTION)


def say(trajectory, text, stop="end"):
    trajectory.turns.append(Turn(Prompt((1,)), Reply((2,), (0.0,), stop), text))


def text_of(messages):
    return "".join(part for message in messages for part in message.parts if isinstance(part, str))
