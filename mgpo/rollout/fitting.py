"""Which conversations fit: into the positions that a model knows, and into the prompt length that was configured."""

from collections.abc import Sequence
from typing import Any

from mgpo.dialogues import Dialogue
from mgpo.dialogues.asked import opening_of
from mgpo.images.views import Original
from mgpo.policy.base import Policy
from mgpo.types import Prompt, Question, Trajectory, Turn, conversations


def too_long(policy: Policy, turns: Sequence[Turn], prompt: Prompt, reply: int, most: int | None = None) -> str | None:
    """Why a reply of `reply` tokens does not fit behind these turns and this prompt; None where it does.

    `most` are the tokens that the sampler takes in all, where it has such a limit.
    """
    number = len(turns) + 1
    turns = [] if prompt.fresh or not turns else conversations(turns)[-1]
    tokens = sum(len(turn.prompt.ids) + len(turn.reply.ids) for turn in turns) + len(prompt.ids)
    limit, known = policy.max_prompt_tokens, policy.max_positions
    if limit is not None and tokens > limit:
        return f"{tokens:,} tokens stand before reply {number}; policy.max_prompt_tokens allows {limit:,}"
    if most is not None and tokens + reply > most:
        return (
            f"{tokens:,} tokens stand before reply {number}; with the {reply:,} of sampling.max_new_tokens that is "
            f"beyond the {most:,} of model.sampler.max_model_len"
        )
    if known is None or tokens + reply <= known:  # a token takes one position at most
        return None
    at = 0
    for turn in turns:
        at = policy.positions(turn.prompt, at)[1] + len(turn.reply.ids)
    end = policy.positions(prompt, at)[1]
    if end + reply <= known:
        return None
    return (
        f"{tokens:,} tokens stand before reply {number} and reach position {end:,}; with the {reply:,} of "
        f"sampling.max_new_tokens that is beyond the {known:,} that the model knows; shorten the question, or lower "
        "the pixel caps or max_new_tokens"
    )


def most_of(sampler: Any) -> int | None:
    """The tokens of a conversation that a sampler takes, its `max_model_len`; None where it has no limit of its own."""
    return getattr(sampler, "max_model_len", None)


def in_process(sampler: Any) -> bool:
    """Whether a sampler passes the policy itself, which then has to be whole and in evaluation mode; an engine has
    weights of its own, and the policy may be learning meanwhile."""
    return getattr(sampler, "in_process", sampler.exact)


def opening_too_long(
    policy: Policy,
    dialogue: Dialogue,
    question: Question,
    original: Original,
    reply: int,
    others: Sequence[Original] = (),
    most: int | None = None,
) -> str | None:
    """The same of a conversation that has not begun, with all its pictures. No text is encoded twice."""
    return too_long(policy, (), opening(policy, dialogue, Trajectory.begin(question, original, *others)), reply, most)


def opening(policy: Policy, dialogue: Dialogue, trajectory: Trajectory) -> Prompt:
    """The first prompt of a conversation with blanks for its pictures, of which no pixel is looked at."""
    messages = opening_of(dialogue, trajectory, policy.resolution)
    return policy.chat.open(messages, lambda view: policy.blank(view.size))
