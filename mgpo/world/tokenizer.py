"""The embedded model's tokenizer: byte-level BPE whose merges may cross spaces and punctuation.

What the templates say again and again becomes a few long tokens, while numbers, colours and single
capitals stay tokens of their own: an episode is a third as long as under ordinary BPE.
"""

import re

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from mgpo.dialogues import free_turns, single_turn, two_turn
from mgpo.dialogues.base import UNITS
from mgpo.images.boxes import REASONS
from mgpo.images.views import Frame
from mgpo.world.questions import ASK_DOTS, ASK_LETTER, ASK_PAIR, NOT_SHOWN
from mgpo.world.scenes import COLOURS, LETTERS

SPECIAL = [
    "<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|vision_start|>", "<|vision_end|>", "<|vision_pad|>",
    "<|image_pad|>", "<|video_pad|>",
]  # fmt: skip
ATOMS = rf"(?<![A-Za-z_])\d+|\b(?:{'|'.join(COLOURS)})\b|\b[A-Z]\b"
# How the embedded model writes its replies; the base learns these forms in pretraining.
BOX_REPLY = '```json\n[{{"bbox_2d": [{}, {}, {}, {}], "label": "{} mark"}}]\n```'
BOTH_REPLY = BOX_REPLY + "\n\\boxed{{{}}}"
ANSWER_REPLY = "\\boxed{{{}}}"
CHAT_TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{% if m.content is string %}{{ m.content }}{% else %}"
    "{% for c in m.content %}{% if c.type == 'image' %}<|vision_start|><|image_pad|><|vision_end|>"
    "{% else %}{{ c.text }}{% endif %}{% endfor %}{% endif %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def corpus() -> list[str]:
    """Every text that the templates can say, and the numbers up to 256."""
    questions = [q.format("red", "blue") for q in (ASK_LETTER, ASK_DOTS, ASK_PAIR)]
    choices = "".join(f"\n({o}) {c}" for o, c in zip("ABCDE", [*LETTERS[:4], NOT_SHOWN]))
    templates = [
        two_turn.ASK_BOX,
        two_turn.SHOW_REGION,
        two_turn.SHOW_WHOLE,
        single_turn.ASK_BOTH,
        single_turn.ASK_ANSWER,
        two_turn.LOOK_AGAIN,
        two_turn.NAME_AGAIN,
        free_turns.ASK_FREELY,
        *(a + b for a in (free_turns.SHOW_PART, free_turns.REFUSE_PART) for b in (free_turns.GO_ON, free_turns.FINISH)),
    ]
    said = [f"system\n{two_turn.SYSTEM}", "assistant\n", ANSWER_REPLY.format("K"), ANSWER_REPLY.format("12")]
    said += [BOX_REPLY.format(1, 2, 3, 4, "red"), BOTH_REPLY.format(1, 2, 3, 4, "red", "K")]
    for template in templates:
        for question in questions:
            for choice in ("", choices):
                for reason in REASONS.values():
                    filled = template.replace("{question}", question).replace("{choices}", choice)
                    filled = filled.replace("{units}", UNITS[Frame.PIXELS])
                    filled = filled.replace("{reason}", reason)
                    for looks in ("once", "2 times") if "{looks}" in filled else ("",):
                        said += filled.replace("{looks}", looks).split("{image}")
    said.append("user\n")
    atoms = [str(n) for n in range(257)] + list(COLOURS)
    return said * 20 + atoms * 40


def train_tokenizer() -> PreTrainedTokenizerFast:
    """Train the tokenizer on the templates; deterministic. The vocabulary ends up smaller than the bound, 2,048."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(ATOMS), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=2048, special_tokens=SPECIAL, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False, min_frequency=2, max_token_length=400,
    )  # fmt: skip
    tokenizer.train_from_iterator(corpus(), trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token="<|im_end|>", pad_token="<|endoftext|>", chat_template=CHAT_TEMPLATE
    )


def is_atom(text: str) -> bool:
    """Whether a text is a number, a colour or a capital: what the model has to choose."""
    return re.fullmatch(ATOMS, text) is not None
