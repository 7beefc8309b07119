"""Thoughts are no replies: what a model writes between the tags of a thought is neither a box nor an answer."""

import re

_NAME = r"(?:[a-z]{1,9}:)?(?:think(?:ing)?|thoughts?|reasoning|analysis)"
_TAG = re.compile(
    rf"<\s{{0,3}}(?P<angle>/?)\s{{0,3}}{_NAME}\s{{0,3}}>|\[(?P<square>/?)THINK\]|◁(?P<wedge>/?)think▷", re.IGNORECASE
)


def is_tag(token: str) -> bool:
    """Whether a token is the tag of a thought: text that may be sampled, even where a tokenizer calls it special."""
    return _TAG.fullmatch(token) is not None


def closing(prompt: str) -> str:
    """The tag that closes the thought inside which a prompt ends; nothing where it ends in none."""
    *_, last = [None, *_TAG.finditer(prompt)]
    if last is None or "/" in last[0]:
        return ""
    return f"{last[0][0]}/{last[0][1:]}"


def spoken(text: str, opened: bool = False) -> str:
    """A reply without its thoughts: `<think>…</think>` and the like, in any number.

    A closing tag without an opening one ends a thought that began before the reply, so nothing in front of it was
    said; a thought that is never closed lasts to the end.

    Args:
        text: The reply.
        opened: Whether the prompt ends inside a thought, as after a chat template that opens one.
    """
    said: list[str] = []
    place, inside = 0, opened
    for tag in _TAG.finditer(text):
        closes = "/" in (tag["angle"], tag["square"], tag["wedge"])
        if closes and not inside:
            said.clear()
        elif not closes and not inside:
            said.append(text[place : tag.start()])
        if closes or not inside:
            place, inside = tag.end(), not closes
    return "".join(said if inside else [*said, text[place:]])
