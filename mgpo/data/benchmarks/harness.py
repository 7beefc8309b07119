r"""The rules by which two common harnesses read a reply, so that scores can be compared with theirs.

Each takes the reply as it stands and the question's choices, and gives an answer, or None where the harness
has none. None of them looks into \boxed{}.
"""

import re
from collections.abc import Callable
from typing import TypeVar

from mgpo.answers import LETTERS

Rule = Callable[[str, tuple[str, ...]], str | None]
T = TypeVar("T")

# Two commas are missing in the published lists: the last two phrases are never found alone.
PHRASES = (
    "The best answer is", "The correct answer is", "The answer is", "The answer",
    "The best option isThe correct option is", "Best answer:Best option:",
)  # fmt: skip
REFUSALS = (
    "Sorry, I can't help with images of people yet.", "I can't process this file.",
    "I'm sorry, but without the image provided", "Cannot determine the answer",
)  # fmt: skip
NO_ANSWER = "Failed to obtain answer via API"
LAST_WORDS = 5  # a letter counts among these only
PUNCTUATION = ';/[]"{}()=+\\_-><@`,?!'
VSTAR_FORMS = (
    r"^([A-D])\s*[.)\]]*",
    r"(?:THE\s+)?(?:ANSWER|CHOICE|OPTION)(?:\s+IS)?[\s:]+([A-D])",
    r"\(([A-D])\)",
    r"([A-D])\s*[.)\]]",
    r"(?:^|\s)([A-D])(?:\s|$)",
)


def first_letter(reply: str, choices: tuple[str, ...] = ()) -> str | None:
    """MME-RealWorld in both: the first of A to E anywhere, after stock phrases; "Based on" is B.

    Without one, a reply of at most ten words that is part of "(A)" … "(E)" in any case counts as that
    letter: "b" is B, and an empty reply is A.
    """
    text = reply.strip()
    for phrase in PHRASES:
        text = text.replace(phrase, "")
    if match := re.search("[A-E]", text):
        return match[0]
    if len(text.split()) > 10:
        return None
    return next((letter for letter in LETTERS[:5] if text.lower() in f"({letter.lower()})"), None)


def vstar_forms(reply: str, choices: tuple[str, ...] = ()) -> str | None:
    """V* in lmms-eval: in capitals, the first of five forms that is found anywhere; else the only A to D there is.

    Words count as well as letters: "based …" is B by the first form, "… is red." D by the fourth.
    """
    text = reply.strip().upper()
    for form in VSTAR_FORMS:
        if match := re.search(form, text):
            return match[1]
    letters = re.findall("[A-D]", text)
    return letters[0] if len(letters) == 1 else None


def options(reply: str, choices: tuple[str, ...]) -> str | None:
    """V* and HR-Bench in VLMEvalKit without a judge model: a letter of its own near the end, else an option's text.

    The letter must be the only one that stands as a word, and stand among the last words; the text must
    be the only option's in a reply of at most twice the length of all options.
    """
    named = dict(zip(LETTERS, choices))
    if NO_ANSWER not in reply:
        if any(refusal in reply for refusal in REFUSALS):
            return None
        words = re.sub(r"[.()\[\],:;!*#{}]", " ", reply).split()
        found = [letter for letter in named if letter in words]
        if len(found) == 1 and words.index(found[0]) > len(words) - LAST_WORDS:
            return found[0]
        if not found and "Z" in words:
            return None
    text = reply.lower()
    if len(text) > 2 * sum(map(len, choices)):
        return None
    return only([letter for letter, choice in named.items() if choice.lower() in text])


def whole_reply(reply: str, choices: tuple[str, ...] = ()) -> str | None:
    """POPE in lmms-eval: the whole reply, in lower case, has to be the answer."""
    return reply.lower().strip()


def yes_or_no(reply: str, choices: tuple[str, ...] = ()) -> str | None:
    """POPE in VLMEvalKit: whichever of yes and no is among the words, if the other is not."""
    text = reply.lower()
    dropped = re.search(r"\d,\d", text) is not None
    words = text
    for sign in PUNCTUATION:
        words = words.replace(sign, "" if dropped or f"{sign} " in text or f" {sign}" in text else " ")
    words = re.sub(r"\.(?!\d)", "", words).split()
    return only([word for word in ("yes", "no") if word in words])


def only(found: list[T]) -> T | None:
    """The element of a list of one."""
    return found[0] if len(found) == 1 else None
