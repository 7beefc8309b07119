"""The examples in the docstrings of what people write themselves: each can be run, and named as it says."""

import re
import textwrap

import pytest

from mgpo.data.base import Source
from mgpo.dialogues import Cut, Dialogue, TwoTurn
from mgpo.images.decoding import to_rgb
from mgpo.policy import Policy
from mgpo.rewards import Reward
from mgpo.rollout import Sampler, Sampling, roll_out
from mgpo.types import Prompt, Reply, Trajectory, Turn
from tests.conftest import make_question, noise_image
from tests.helpers.cases import RULE

OPTIONS = {Source: ["--data.train.folder=."], Policy: ["--model.policy.path=none"]}


def example(documented):
    """Name of the module, its text, and the first argument of the command line."""
    text = textwrap.dedent(documented.__doc__.partition("Example:")[2])
    name = re.search(r"(\w+)\.py::", text)[1]
    code, _, behind = text.partition("::")[2].partition("and on the command line")
    key, path = re.search(r"``(--[\w.]+) ([\w.]+)", behind).groups()
    return name, code, f"{key}={path}"


@pytest.mark.parametrize("documented", [Reward, Cut, Dialogue, Source, Policy, Sampler], ids=lambda kind: kind.__name__)
def test_an_example_is_taken_by_the_command_line(documented, write_file, configured):
    name, code, argument = example(documented)
    write_file(name, code)
    cli = configured(argument, *OPTIONS.get(documented, ()))
    key, path = argument.removeprefix("--").split("=")
    part = {"model": cli.model, "data": cli.datamodule}[key.split(".")[0]]
    for attribute in key.split(".")[1:]:
        part = getattr(part, attribute)
    made = part if isinstance(part, type(example)) else type(part)
    assert f"{made.__module__}.{made.__name__}" == path


def test_the_dialogue_asks_once_more(policy, write_file, configured):
    name, code, argument = example(Dialogue)
    write_file(name, code)
    dialogue = configured(argument).model.dialogue
    image = noise_image(200, 100)
    trajectory = Trajectory(make_question(image), image)
    dialogue.open(trajectory, policy.resolution)
    for _ in range(2):
        trajectory.turns.append(Turn(Prompt((1,)), Reply((2,), (0.0,), "end"), "I do not know."))
        going_on = dialogue.proceed(trajectory, policy.resolution)
        assert (going_on is None) == (len(trajectory.turns) == 2)
    assert [turn.action for turn in trajectory.turns] == ["nothing", "nothing"]


def test_the_sampler_is_cooler_in_its_first_replies_alone(policy, write_file, configured):
    """Where all rewrite to temperature 0 the first replies of a group are one and the same."""
    name, code, argument = example(Sampler)
    write_file(name, code.replace("0.7 * sampling.temperature", "0.0"))
    sampler = configured(argument).model.sampler
    sample = (make_question(noise_image(200, 100)), to_rgb(noise_image(200, 100)))
    first, second = zip(
        *(t.turns for t in roll_out(policy, sampler, TwoTurn(rule=RULE), [sample], 4, Sampling(8), (0, 0)))
    )
    assert len({turn.reply.ids for turn in first}) == 1 < len({turn.reply.ids for turn in second})
