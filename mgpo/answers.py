"""What a reply commits to, and whether it is right."""

import re
import string
import unicodedata

LONGEST_REPLY = 100_000
LONGEST_ANSWER = 500
LETTERS = string.ascii_uppercase
_TAG = re.compile(r"<answer>(.{1,500}?)</answer>", re.IGNORECASE | re.DOTALL)
_SAID = re.compile(r"\banswer\s{0,3}(?:is|:|=)\s{0,3}(?=([^\n]{1,200}))", re.IGNORECASE)
_PICK = re.compile(r"\(?[A-Z]\)?(?:[.,;:!]|\s|$)|[-+]?\d")
_BARE = re.compile(r"\s*\(?([A-Z])\)?[.:]?\s*")
_NUMBER = re.compile(r"[-+]?(?:\d{1,3}(?:,\d{3}){1,5}|\d{1,15})(?:\.\d{1,15})?(?:e[-+]?\d{1,2})?")
_THOUSANDS = re.compile(r"(?<=\d),(?=\d{3}(?:\D|$|,))")
WORDS = (
    "zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve",
    "thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen", "twenty",
)  # fmt: skip
# "B", "(b)", "B. blue", "B blue", "A because …", but not "A dog"
_OPTION = re.compile(r"\(?(?:([A-Za-z])(?:[).:,]|\s*$|\s+(?:because|since|as|is|for)\b)|([B-HJ-Zb-hj-z])\s)")


def extract(reply: str) -> str | None:
    r"""The last commitment of a reply: `\boxed{…}`, `<answer>…</answer>`, "the answer is …", or a letter alone.

    Nothing is guessed: a reply that commits to nothing ("Based on the picture …") gives None. A loose
    "the answer is …" behind a box or tag counts only where it names an option or a number, so that
    "the answer is clear" takes nothing back.
    """
    reply = reply[-LONGEST_REPLY:]
    marked = [(match.start(), match.end(), match[1]) for match in _TAG.finditer(reply)]
    if (boxed := _last_boxed(reply)) is not None:
        marked.append(boxed)
    _, end, last = max(marked, default=(-1, -1, None))
    said = list(_SAID.finditer(reply))
    picks = [match for match in said if match.start() >= end and _PICK.match(match[1])]
    if picks or (last is None and said):
        last = (picks or said)[-1][1].strip().rstrip(".")
    if last is not None:
        return last.strip() or None
    bare = _BARE.fullmatch(reply)
    return bare[1] if bare else None


def _last_boxed(reply: str) -> tuple[int, int, str] | None:
    r"""Start, end and content of the last complete `\boxed{…}`, braces balanced."""
    end = len(reply)
    while (start := reply.rfind("\\boxed{", 0, end)) >= 0:
        depth = 1
        for i in range(start + 7, min(len(reply), start + 7 + LONGEST_ANSWER)):
            depth += (reply[i] == "{") - (reply[i] == "}")
            if depth == 0:
                return start, i + 1, reply[start + 7 : i]
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
    letter = (option[1] or option[2]).upper() if option else None
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
        return float(_THOUSANDS.sub("", answer)) == float(_THOUSANDS.sub("", truth))
    except ValueError:
        return False


def vote_of(answer: str | None, choices: tuple[str, ...] = ()) -> str | None:
    """What an answer stands for, so that equal ones can be counted: an option's letter, a number, or words.

    None where there is no answer, or where it picks none of the options.
    """
    if answer is None:
        return None
    if choices:
        return choice_letter(answer, choices)
    words = normalise(answer)
    try:
        return repr(float(_THOUSANDS.sub("", words)))
    except ValueError:
        return words or None


def is_number(answer: str, truth: str, relative: float = 0.0, absolute: float = 0.0) -> bool:
    """Whether both hold one number each, near enough to each other; equal by default."""
    given, right = find_number(answer), find_number(truth)
    if given is None or right is None:
        return False
    return abs(given - right) <= max(absolute, relative * abs(right))


def find_number(text: str) -> float | None:
    """The only number in a short text: "1,200", "about 12 cars", "twelve"; None where there is none, or two."""
    words = normalise(text)
    found = [float(number.replace(",", "")) for number in _NUMBER.findall(words)]
    found += [float(WORDS.index(word)) for word in re.findall(r"[a-z]+", words) if word in WORDS]
    return found[0] if len(found) == 1 else None
