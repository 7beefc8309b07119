"""Messages to token ids, in the form of a checkpoint's own chat template."""

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import lru_cache
from typing import Any

from transformers import PreTrainedTokenizerBase

from mgpo.answers.thoughts import closing
from mgpo.errors import UserError, first_line
from mgpo.images.views import View
from mgpo.types import Message, Pixels, Prompt, Reply

# A text stands in the template as its number between private-use signs, so that the template can neither read nor
# change it, but for the white space at its ends, which some templates trim.
SIGN = "\ue000"
REPLY = f"{SIGN}reply{SIGN}"
REMEMBERED = 512  # texts and turns: those of a group are the same, and much of a prompt never changes


class Chat:
    """Encodes what is shown, decodes what was sampled; a reply is never encoded.

    Text is encoded with control tokens switched off: a question that contains "<|im_end|>" stays text.

    Args:
        tokenizer: A tokenizer with a chat template.
        control: The ids of tokens that are never text, by name.
        slot: What the template writes for an image.
        image: The token whose embedding an image feature replaces.
        expand: What takes the slot's place for an image: its placeholders and what stands around them.

    Raises:
        UserError: If there is no template, or none that ends a reply with a token.
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        control: dict[str, int],
        slot: str,
        image: str,
        expand: Callable[[Pixels], str],
    ) -> None:
        self.tokenizer, self.slot, self.expand = tokenizer, slot, expand
        self._tokens = lru_cache(REMEMBERED)(self._tokenize)
        self._rendered = lru_cache(REMEMBERED)(self._apply_template)
        self.ids = control
        self.image_id = self.ids[image]
        known = "|".join(re.escape(token) for token in sorted(self.ids, key=len, reverse=True))
        self.pieces = re.compile(rf"({known}|{SIGN}\d+{SIGN})")
        if tokenizer.chat_template is None:
            raise UserError(f"the tokenizer in {tokenizer.name_or_path} has no chat template (chat_template.jinja)")
        self.end = next(filter(None, self.pieces.split(self._behind_reply([{"role": "user", "content": "?"}]))), "")
        if self.end not in self.ids:
            raise UserError(f"the chat template in {tokenizer.name_or_path} does not end replies with a control token")
        self.end_id = self.ids[self.end]
        # The tag that ends a thought which the template begins in front of every reply; empty without one.
        self.closing = closing(self._render([{"role": "user", "content": "?"}]).rpartition(self.end)[-1])

    def open(self, messages: Sequence[Message], pixels: Callable[[View], Pixels]) -> Prompt:
        """The ids of a conversation's beginning, up to where the policy's first reply starts, as a fresh prompt.

        Args:
            messages: What is said and shown, in order.
            pixels: Makes of a view what the vision tower takes.
        """
        spoken, texts, views = _number(messages)
        return replace(self._encode(self._render(spoken), texts, [pixels(view) for view in views]), fresh=True)

    def follow(self, messages: Sequence[Message], reply: Reply, pixels: Callable[[View], Pixels]) -> Prompt:
        """The ids between a reply and the next: the rest of its turn, messages, and the next one's start.

        Args:
            messages: What is said and shown, in order.
            reply: The one before, of whose sampled ids none is repeated, the end of turn included.
            pixels: Makes of a view what the vision tower takes.
        """
        spoken, texts, views = _number(messages)
        text = self._behind_reply(spoken)
        if reply.ids[-1:] == (self.end_id,):
            text = text.removeprefix(self.end)
        return self._encode(text, texts, [pixels(view) for view in views])

    def decode(self, ids: Sequence[int]) -> str:
        """The text of sampled ids without their end-of-turn token, for parsing only."""
        ids = ids[:-1] if tuple(ids[-1:]) == (self.end_id,) else ids
        return str(self.tokenizer.decode(list(ids), skip_special_tokens=False, clean_up_tokenization_spaces=False))

    def encode_text(self, text: str) -> list[int]:
        """The ids of a plain text; a control token's name in it is text."""
        return list(self._tokens(text))

    def _tokenize(self, text: str) -> tuple[int, ...]:
        return tuple(self.tokenizer.encode(text, add_special_tokens=False, split_special_tokens=True))

    def _render(self, spoken: list[dict[str, Any]]) -> str:
        return self._rendered(json.dumps(spoken))

    def _apply_template(self, spoken: str) -> str:
        # Families that can think before they answer are asked not to: their templates forget thoughts in later turns.
        try:
            return str(
                self.tokenizer.apply_chat_template(
                    json.loads(spoken), tokenize=False, add_generation_prompt=True, enable_thinking=False
                )
            )
        except Exception as error:  # a template may raise anything
            reason = first_line(error)
            raise UserError(f"the chat template in {self.tokenizer.name_or_path} fails: {reason}") from None

    def _behind_reply(self, spoken: list[dict[str, Any]]) -> str:
        before = [{"role": "user", "content": "?"}, {"role": "assistant", "content": REPLY}]
        return self._render([*before, *spoken]).split(REPLY)[-1]

    def _encode(self, rendered: str, texts: Sequence[str], images: Sequence[Pixels]) -> Prompt:
        first, *others = rendered.split(self.slot)
        if len(others) != len(images):
            raise UserError(f"the chat template shows {len(others)} images where there are {len(images)}")
        rendered = first + "".join(self.expand(image) + text for image, text in zip(images, others))
        ids: list[int] = []
        text = ""
        for piece in [*self.pieces.split(rendered), None]:
            if piece is None or piece in self.ids:
                ids += self._tokens(text) if text else ()
                ids += [self.ids[piece]] if piece else []
                text = ""
            else:  # neighbouring texts are encoded as one, as a tokenizer does with the whole
                text += texts[int(piece.strip(SIGN))] if piece.startswith(SIGN) else piece
        return Prompt(tuple(ids), tuple(images))


def control_tokens(tokenizer: PreTrainedTokenizerBase, named: Sequence[str], rows: int) -> tuple[dict[str, int], int]:
    """Tokens that are never text: the special ones, those of ChatML's form, and those named. And the number of ids.

    Tokens that have no row in the embedding are left out. Raises UserError where text could become one of them.
    """
    added = {str(token): (i, token.special) for i, token in tokenizer.added_tokens_decoder.items()}
    form = re.compile(r"<\|\w+\|>")
    control = {token: i for token, (i, special) in added.items() if special or token in named or form.fullmatch(token)}
    vocabulary = tokenizer.get_vocab()
    lost = [token for token, i in vocabulary.items() if i >= rows and (token in named or token not in control)]
    if lost:
        raise UserError(
            f"the tokenizer in {tokenizer.name_or_path} has {max(vocabulary.values()) + 1:,} tokens, but the embedding "
            f"{rows:,} rows: {', '.join(sorted(lost)[:3])} has none; take the tokenizer that belongs to the weights"
        )
    known = min(max(vocabulary.values()) + 1, rows)
    return {token: i for token, i in control.items() if i < rows}, known


def _number(messages: Sequence[Message]) -> tuple[list[dict[str, Any]], list[str], list[View]]:
    """Messages as a template takes them, with numbers for texts, and the texts and views in order."""
    texts: list[str] = []
    views: list[View] = []
    spoken: list[dict[str, Any]] = []
    for message in messages:
        content: list[dict[str, str]] = []
        for part in message.parts:
            if isinstance(part, View):
                views.append(part)
                content.append({"type": "image"})
            elif part:
                core = part.strip()
                marked = part.replace(core, f"{SIGN}{len(texts)}{SIGN}", 1) if core else part
                texts.append(core)
                content.append({"type": "text", "text": marked})
        plain = len(content) == 1 and "text" in content[0]
        spoken.append({"role": message.role, "content": content[0]["text"] if plain else content})
    return spoken, texts, views
