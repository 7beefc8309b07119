"""Messages to token ids, in the ChatML form of the Qwen families."""

from collections.abc import Callable, Sequence

from transformers import PreTrainedTokenizerBase

from mgpo.errors import UserError
from mgpo.types import Message, Pixels, Prompt, Reply
from mgpo.views import View

START, END, IMAGE = "<|im_start|>", "<|im_end|>", "<|image_pad|>"
VISION_START, VISION_END = "<|vision_start|>", "<|vision_end|>"
NEEDED = (START, END, IMAGE, VISION_START, VISION_END)


class Chat:
    """Encodes what is shown, decodes what was sampled; a reply is never encoded.

    Text is encoded with control tokens switched off: a question that contains "<|im_end|>" stays text.

    Args:
        tokenizer: A tokenizer that knows the ChatML and vision tokens.
        merge: Patches of a merged token along one side.

    Raises:
        UserError: If the tokenizer lacks one of the needed tokens.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, merge: int) -> None:
        self.tokenizer, self.merge = tokenizer, merge
        vocabulary = tokenizer.get_vocab()
        if missing := [token for token in NEEDED if token not in vocabulary]:
            raise UserError(f"the tokenizer lacks {', '.join(missing)}: this is not a Qwen-VL checkpoint")
        self.ids = {token: vocabulary[token] for token in NEEDED}
        self.end_id, self.image_id = self.ids[END], self.ids[IMAGE]

    def open(self, messages: Sequence[Message], pixels: Callable[[View], Pixels]) -> Prompt:
        """The ids of a conversation's beginning, up to where the policy's first reply starts."""
        return self._encode(self._turns(messages), pixels)

    def follow(self, messages: Sequence[Message], reply: Reply, pixels: Callable[[View], Pixels]) -> Prompt:
        """The ids between a reply and the next. The end-of-turn token is added only where it was not sampled."""
        close: list[int | str | View] = [] if reply.ids[-1:] == (self.end_id,) else [self.end_id]
        return self._encode([*close, "\n", *self._turns(messages)], pixels)

    def decode(self, ids: Sequence[int]) -> str:
        """The text of sampled ids without their end-of-turn token, for parsing only."""
        ids = ids[:-1] if tuple(ids[-1:]) == (self.end_id,) else ids
        return str(self.tokenizer.decode(list(ids), skip_special_tokens=False, clean_up_tokenization_spaces=False))

    def encode_text(self, text: str) -> list[int]:
        """Plain text to ids; control tokens in it are text."""
        return self.tokenizer.encode(text, add_special_tokens=False, split_special_tokens=True)

    def _turns(self, messages: Sequence[Message]) -> list[int | str | View]:
        items: list[int | str | View] = []
        for message in messages:
            items += [self.ids[START], f"{message.role}\n", *message.parts, self.ids[END], "\n"]
        return [*items, self.ids[START], "assistant\n"]

    def _encode(self, items: Sequence[int | str | View], pixels: Callable[[View], Pixels]) -> Prompt:
        ids: list[int] = []
        images: list[Pixels] = []
        text = ""
        for item in [*items, None]:
            if isinstance(item, str):
                text += item  # neighbouring texts are encoded as one, as the family's own template does
                continue
            if text:
                ids += self.encode_text(text)
                text = ""
            if isinstance(item, int):
                ids.append(item)
            elif isinstance(item, View):
                image = pixels(item)
                images.append(image)
                t, h, w = image.grid
                count = t * h * w // self.merge**2
                ids += [self.ids[VISION_START], *[self.image_id] * count, self.ids[VISION_END]]
        return Prompt(tuple(ids), tuple(images))
