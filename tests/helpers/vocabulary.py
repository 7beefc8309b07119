"""The published vocabulary of the Qwen families, from the package qwen-agent, which ships its ranks.

python -m tests.helpers.vocabulary FOLDER    # writes the tokenizer there
"""

import base64
import sys
from functools import cache
from importlib.util import find_spec
from pathlib import Path

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers
from transformers import PreTrainedTokenizerFast
from transformers.convert_slow_tokenizer import bytes_to_unicode

SIZE = 151_643  # tokens before the added ones
PIECES = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
# In the order of their ids, as in the checkpoints of Qwen2.5-VL; those of the second list are text.
CONTROL = [
    "<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|object_ref_start|>", "<|object_ref_end|>", "<|box_start|>",
    "<|box_end|>", "<|quad_start|>", "<|quad_end|>", "<|vision_start|>", "<|vision_end|>", "<|vision_pad|>",
    "<|image_pad|>", "<|video_pad|>",
]  # fmt: skip
PLAIN = [
    "<tool_call>", "</tool_call>", "<|fim_prefix|>", "<|fim_middle|>", "<|fim_suffix|>", "<|fim_pad|>",
    "<|repo_name|>", "<|file_sep|>",
]  # fmt: skip
# What the checkpoints' own template renders of texts and pictures, in which messages may be without a system's.
TEMPLATE = """\
{% for message in messages %}\
{% if loop.first and message['role'] != 'system' %}\
<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n{% endif %}\
<|im_start|>{{ message['role'] }}\n\
{% if message['content'] is string %}{{ message['content'] }}<|im_end|>\n\
{% else %}{% for part in message['content'] %}\
{% if part['type'] == 'image' %}<|vision_start|><|image_pad|><|vision_end|>\
{% elif 'text' in part %}{{ part['text'] }}{% endif %}\
{% endfor %}<|im_end|>\n{% endif %}\
{% endfor %}\
{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"""


def ranks_file() -> Path:
    """In the package, of which no line is run. Raises LookupError where it is not installed."""
    package = find_spec("qwen_agent")
    if package is None or not package.submodule_search_locations:
        raise LookupError("the published vocabulary is in qwen-agent: pip install --no-deps qwen-agent")
    return Path(package.submodule_search_locations[0]) / "utils" / "qwen.tiktoken"


def read_ranks() -> dict[bytes, int]:
    """Each token's rank, which is its id."""
    lines = ranks_file().read_bytes().split(b"\n")
    ranks = {base64.b64decode(token): int(rank) for token, rank in (line.split() for line in lines if line)}
    assert sorted(ranks.values()) == list(range(SIZE))
    return ranks


def last_merge(token: bytes, ranks: dict[bytes, int]) -> tuple[bytes, bytes]:
    """The pair that becomes this token: what is left of it once all earlier merges are done."""
    parts = [token[i : i + 1] for i in range(len(token))]
    while len(parts) > 2:
        first = min(range(len(parts) - 1), key=lambda i: ranks.get(parts[i] + parts[i + 1], SIZE))
        parts[first : first + 2] = [parts[first] + parts[first + 1]]
    return parts[0], parts[1]


@cache
def make_tokenizer() -> PreTrainedTokenizerFast:
    """Seconds: once a process is enough."""
    ranks, letter = read_ranks(), bytes_to_unicode()
    shown = {token: "".join(letter[byte] for byte in token) for token in ranks}
    longer = sorted((token for token in ranks if len(token) > 1), key=ranks.__getitem__)
    merges = [tuple(shown[part] for part in last_merge(token, ranks)) for token in longer]
    tokenizer = Tokenizer(models.BPE({shown[token]: rank for token, rank in ranks.items()}, merges))
    tokenizer.normalizer = normalizers.NFC()
    split = pre_tokenizers.Split(Regex(PIECES), "isolated")
    as_letters = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([split, as_letters])
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in CONTROL])
    tokenizer.add_tokens([AddedToken(token, special=False, normalized=False) for token in PLAIN])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token="<|im_end|>", pad_token="<|endoftext|>", chat_template=TEMPLATE
    )


if __name__ == "__main__":
    make_tokenizer().save_pretrained(sys.argv[1])
