"""What a reply commits to, and whether it is right."""

import re
import string
import unicodedata

LONGEST_REPLY = 100_000
LONGEST_ANSWER = 500
LETTERS = string.ascii_uppercase
_TAG = re.compile(r"<answer>(.{1,500}?)</answer>", re.IGNORECASE | re.DOTALL)
_SAID = re.compile(r"\banswer\s{0,3}(?:is|:|=)\s{0,3}([^\n]{1,200})", re.IGNORECASE)
_BARE = re.compile(r"\s*\(?([A-Z])\)?[.:]?\s*")
_OPTION = re.compile(r"\(?([A-Za-z])(?:[).:]|\s|$)")


def extract(reply: str) -> str | None:
    r"""The last commitment of a reply: `\boxed{…}`, `<answer>…</answer>`, "the answer is …", or a letter alone.

    Nothing is guessed: a reply that commits to nothing ("Based on the picture …") gives None.
    """
    reply = reply[-LONGEST_REPLY:]
    if (boxed := _last_boxed(reply)) is not None:
        return boxed
    for pattern in (_TAG, _SAID):
        if found := pattern.findall(reply):
            return found[-1].strip().rstrip(".").strip() or None
    bare = _BARE.fullmatch(reply)
    return bare[1] if bare else None


def _last_boxed(reply: str) -> str | None:
    r"""The content of the last complete `\boxed{…}`, braces balanced."""
    end = len(reply)
    while (start := reply.rfind("\\boxed{", 0, end)) >= 0:
        depth = 1
        for i in range(start + 7, min(len(reply), start + 7 + LONGEST_ANSWER)):
            depth += (reply[i] == "{") - (reply[i] == "}")
            if depth == 0:
                return reply[start + 7 : i].strip() or None
        end = start
    return None


def normalise(answer: str) -> str:
    r"""Lower case, one space between words, without the wrapping that models add (\text{…}, $…$, quotes, full stop)."""
    answer = unicodedata.normalize("NFKC", answer)[:LONGEST_ANSWER]
    answer = re.sub(r"\\(?:text|mathrm|textbf)\{([^{}]*)\}", r"\1", answer)
    answer = re.sub(r"\s+", " ", answer.strip(" \t\n$\"'`*")).casefold()
    return answer.rstrip(".").strip()


def choice_letter(answer: str, choices: tuple[str, ...]) -> str | None:
    """The letter that an answer picks: "B", "(B)", "B. seven", or the option's own text; None where it picks none."""
    for letter, choice in zip(LETTERS, choices):
        if normalise(answer) == normalise(choice):
            return letter
    option = _OPTION.match(answer.strip())
    letter = option[1].upper() if option else None
    return letter if letter is not None and LETTERS.index(letter) < len(choices) else None


def is_right(answer: str | None, truth: str, choices: tuple[str, ...] = ()) -> bool:
    """Whether an extracted answer is the right one: the option's letter, the same number, or the same words."""
    if answer is None:
        return False
    if choices:
        return choice_letter(answer, choices) == truth
    if normalise(answer) == normalise(truth):
        return True
    try:
        return float(answer.replace(",", "")) == float(truth.replace(",", ""))
    except ValueError:
        return False
