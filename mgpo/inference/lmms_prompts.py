"""Benchmarks' prompts taken apart, since a dialogue shows question and choices in different turns; and the answers."""

import re

from mgpo.answers import LETTERS, given
from mgpo.errors import UserError
from mgpo.types import Trajectory

_OPTION = re.compile(r"\s{0,9}\(?([A-Z])[).:]\s{1,9}(\S.{0,999})")


def split_prompt(prompt: str) -> tuple[str, tuple[str, ...]]:
    """The question and its choices, of a prompt that lists them one a line as "A. red", "(A) red" or "A) red".

    Choices are lettered from A without a gap, two at least. What follows them is an instruction how to
    answer, such as "with the letter directly", and is left out: the dialogue has its own. A prompt
    without choices is a question as a whole.
    """
    lines = prompt.splitlines()
    options = [_OPTION.fullmatch(line) for line in lines]
    for start, first in enumerate(options):
        if first is None or first[1] != "A":
            continue
        letters = zip(options[start:], LETTERS)
        run = next((i for i, (option, letter) in enumerate(letters) if option is None or option[1] != letter), None)
        choices = tuple(option[2].strip() for option in options[start:][:run] if option is not None)
        if len(choices) >= 2:
            return "\n".join(lines[:start]).strip(), choices
    return prompt.strip(), ()


def said(trajectory: Trajectory) -> str:
    """The text that a task is to judge: the final answer, or the last reply where the model committed to none.

    Raises:
        UserError: If a server did not play the episode to its end.
    """
    if trajectory.failed is not None:
        raise UserError(f"question {trajectory.question.id}: {trajectory.failed}")
    answer = given(trajectory.answer, trajectory.question.choices)
    if answer is not None:
        return answer
    return trajectory.turns[-1].said if trajectory.turns else ""
