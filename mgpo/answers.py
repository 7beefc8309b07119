"""What a reply commits to, and whether it is right."""

import re
import string
import unicodedata
from functools import lru_cache

LONGEST_REPLY, LONGEST_ANSWER = 10_000, 500  # characters that are read, of a reply from its end: there it commits
MOST_STATEMENTS = 25  # of each kind, such as "the answer is …", from the end
LONGEST_SENTENCE = 120  # characters of a reply that is one plain statement
LETTERS = string.ascii_uppercase
WORDS = (
    "zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve",
    "thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen", "twenty",
)  # fmt: skip
_BOXED = re.compile(r"\\?boxed\s{0,3}\{")
_BOXED_LETTER = re.compile(r"\\boxed\s{1,3}([A-Z])\b")
_TAG = re.compile(r"<answer>((?:[^<]|<(?!answer>)){0,500}?)</answer>", re.IGNORECASE)
_KEY = re.compile(
    r"""["'](?:final_)?(?:answer|choice|option|count)["']\s{0,3}:\s{0,3}(?:"([^"]{0,500})"|'([^']{0,500})'|(\d+))"""
)
# "the answer is …", in the languages that models slip into; what follows may be any text
_SAID = re.compile(
    r"(?:\b(?:answer|option|choice|letter|guess|antwort|réponse|respuesta(?:\scorrecta)?|ответ)\s{0,3}"
    r"(?:(?:is|ist|lautet|est|es|(?:would|should|must|might|could|has\sto)\sbe)\b\s{0,3}[:=]?|[:=：]|-\s)"
    r"|\b(?:total|count)\s{0,3}(?:is\b|[:=])(?=\s{0,3}\d)"
    r"|(?:答案|选项|答え)\s{0,3}(?:应该)?(?:是|为|は|[:：]))"
    r"\s{0,3}(?=([^\n]{1,200}))",
    re.IGNORECASE,
)
# "so B.", "I choose (C)": a letter and nothing else must follow
_CHOSEN = re.compile(
    r"(?i:\b(?:choose|pick|select|go\swith|must\sbe|it\sis|it's|one\sis|therefore|thus|hence|so|but)\b[,:]?\s{1,3}"
    r"|选择?\s{0,3}|[=-]>\s{0,3})"
    r"(?i:option\s|choice\s)?([(\[]?[A-Z][)\]]?)(?=\s{0,3}(?:[.,;!。，]|$|\n|because\b|since\b))"
)
# "…: B", "… would say B", "… corresponds to option B", "…, which is (B)": at the very end
_LAST = re.compile(
    r"(?i:[a-z]:\s|(?:'d|would)\ssay\s|(?:\b(?:is|be|to|with|match|matches)\s|[—–,(-]\s?)(?:option|choice)\s"
    r"|\b(?:is|be|i\.e\.,?|choice|option)\s(?=\())(\(?[A-Z]\)?)\W{0,3}(?:\w+\.)?$"
)
_RIGHT = re.compile(
    r"(?<![A-Za-z])(\(?[A-Z]\)?)"
    r"(?:\s(?i:(?:is|seems)\s(?:the\s)?(?:most\s)?(?:correct|right|best|answer|plausible|likely)\b)|(?:是)?正确)"
)
# behind these, in the same clause, a letter is denied or left open
_VOID = re.compile(
    r"\b(?:not|neither|nor|none|no\sway|never|(?<!no\s)(?<!without\sa\s)doubt|cannot|whether|which\sof|either|or)\b|n't\b|"
    r"\b(?:incorrect|wrong|false|impossible|unlikely|ruled\sout|excluded)\b",
    re.IGNORECASE,
)
# where a clause ends; the commas of "A, B or C" and ", nor" are within one
_CLAUSE = re.compile(
    r"[.!?;:\n—。；：]|,(?!\s{0,3}(?:n?or\b|\(?[A-Z]\)?\s{0,3}(?:,|n?or\b|and\b)))|，"
    r"|\b(?:so|but|then|hence|thus|therefore|because|since)\b|\b(?:incorrect|wrong|false|excluded)\sand\b"
)
_PICK = re.compile(r"\(?[A-Z]\)?(?:[.,;:!]|\s|$)|[-+]?\d")
_REASON = re.compile(r"[.!?]\s|,\s(?:as|since|because|for)\b|\s(?:because|since)\b")
_LINE = re.compile(r"[(\[]?([A-Za-z])(?:[)\].:,]{1,2}(?:\s.*)?|)", re.DOTALL)
_MARKS = re.compile(r"(?<![\w'])(?:\([A-Z]\)|[A-Z][.):])")
_HEDGE = re.compile(
    r"\b(?:not|no|nor|or|never|cannot|if|either|might|may|maybe|perhaps|unable|nicht|kein\w*)\b|n't|\?|[\[{]",
    re.IGNORECASE,
)
_YES_NO = re.compile(r"\W*(yes\b|no\b(?=\s*(?:[.,;:!\n—–]|$|there\b|it\b)))", re.IGNORECASE)
_NOTHING = {"unknown", "unclear", "none", "nothing", "sorry", "many", "several", "maybe", "unsure", "n/a"}
_NUMBER = re.compile(r"[-+]?(?:\d{1,3}(?:,\d{3}){1,5}|\d{1,15})(?:\.\d{1,15})?(?:e[-+]?\d{1,2})?")
_THOUSANDS = re.compile(r"(?<=\d),(?=\d{3}(?:\D|$|,))")
_SPACED = re.compile(r"\d{1,3}(?: \d{3}){1,5}")
_WRAPPER = re.compile(r"\\(?:text|mathrm|mathbf|textbf|boxed)\{([^{}]*)\}")
_NOT_OTHER = re.compile(r"\W{0,3}not\s\(?[A-Z]\b")  # "B (not C)"
# "B", "(b)", "B. blue", "A because …"; more loosely "B blue", "A is …", but not "A dog"
_OPTION = re.compile(
    r"(?:option|choice)?\s{0,3}[(\[]?"
    r"(?:([A-Za-z])(?:[)\].:,]|\s*$|\s+(?:because|since|as|for)\b|(?=[\u3000-\u9fff]))"
    r"|([A-Za-z])(?=\s+is\b|(?<![AIai])\s))",
    re.IGNORECASE,
)
_ALONE = re.compile(r"[(\[]?([A-Za-z])[)\].:]{0,2}")
_SEVERAL = re.compile(r"\W*[A-Z]\W?\s{0,3}(?:[,/&、]|or\b|and\b|oder\b|und\b|或|和)\s{0,3}\(?[A-Z]\b(?!')")


def extract(reply: str, choices: tuple[str, ...] = ()) -> str | None:
    r"""The last commitment of a reply: `\boxed{…}`, `<answer>…</answer>`, "the answer is …", or a plain short answer.

    Nothing is guessed: a reply that commits to nothing ("Based on the picture …", "I doubt option B is correct.")
    gives None. Behind a box or tag only "the answer is …" counts, and only where it names an option, or a
    number where there are no options, so that "the answer is clear" takes nothing back.

    Args:
        reply: What the policy said.
        choices: The question's; a short reply then is an answer only where it is one of them.
    """
    reply = re.sub(r"\*+|`+", "", reply[-LONGEST_REPLY:])
    marked = [(m.start(), m.end(), next(g for g in m.groups() if g is not None)) for m in _TAG.finditer(reply)]
    marked += [(m.start(), m.end(), next(g for g in m.groups() if g is not None)) for m in _KEY.finditer(reply)]
    if (boxed := _last_boxed(reply)) is not None:
        marked.append(boxed)
    _, end, last = max(marked, default=(-1, -1, None))
    statements = [m for m in _SAID.finditer(reply) if m.start() >= end][-MOST_STATEMENTS:]
    said = [(m.end(), _shortest(m[1], choices)) for m in statements if not _void(reply, m.start())]
    picks = [(at, text) for at, text in said if (choice_letter(text, choices) if choices else _PICK.match(text))]
    if last is None:
        loose = [m for rule in (_CHOSEN, _LAST, _RIGHT) for m in [*rule.finditer(reply)][-MOST_STATEMENTS:]]
        picks += [(m.start(1), m[1]) for m in loose if not _void(reply, m.start(1))]
    if picks or (last is None and said):
        last = max(picks or said)[1]
    if last is not None:
        return last.strip() or None
    return _chosen(reply.strip(), choices) if choices else _plain(reply.strip())


def _last_boxed(reply: str) -> tuple[int, int, str] | None:
    r"""Start, end and content of the last complete `\boxed{…}`, braces balanced."""
    for start in reversed(list(_BOXED.finditer(reply))[-MOST_STATEMENTS:]):
        depth = 1
        for i in range(start.end(), min(len(reply), start.end() + LONGEST_ANSWER)):
            depth += (reply[i] == "{") - (reply[i] == "}")
            if depth == 0:
                return start.start(), i + 1, reply[start.end() : i]
    letter = _BOXED_LETTER.search(reply)
    return (letter.start(), letter.end(), letter[1]) if letter else None


def _void(reply: str, at: int) -> bool:
    """Whether the clause that leads to a place denies what stands there, or leaves it open."""
    return _VOID.search(_CLAUSE.split(reply[max(0, at - LONGEST_SENTENCE) : at])[-1]) is not None


def _shortest(text: str, choices: tuple[str, ...]) -> str:
    """What "the answer is" is followed by, without the reason that may come after it."""
    text = text.strip()
    if choices and choice_letter(text, choices):
        return text
    return _REASON.split(text, maxsplit=1)[0].strip().rstrip(".")


def _chosen(reply: str, choices: tuple[str, ...]) -> str | None:
    """The letter that a reply picks which says nothing but an option: its letter, its text, or a plain statement."""
    if len(_MARKS.findall(reply)) > 1:  # options are gone through, or listed
        return None
    line = reply.split("\n")[0].strip()
    if _LINE.fullmatch(line) and (letter := choice_letter(line, choices)):
        return letter
    if "\n" in reply or len(reply) > LONGEST_SENTENCE:
        return None
    if letter := choice_letter(reply, choices):
        return letter
    words, texts = f" {normalise(reply)}", _normalised(choices)
    named = [x for x, text in zip(LETTERS, texts) if re.search(rf"\W{re.escape(text)}(?!\w)", words)]
    whole = len(named) == 1 and words.endswith(texts[LETTERS.index(named[0])])
    return named[0] if whole and not _HEDGE.search(reply) else None


def _plain(reply: str) -> str | None:
    """A short reply that is an answer itself: yes or no, a word, or a statement with one number."""
    match = _YES_NO.match(reply)
    if match and not {"yes", "no"} <= set(re.findall(r"\w+", re.split(r"[.?!]", reply.casefold())[0])):
        return match[1]
    if "\n" in reply or len(reply) > LONGEST_SENTENCE:
        return None
    word = unwrap(reply).strip("().:!")
    if re.fullmatch(r"(?=[\W\d_]*[^\W\d_])[\w'-]{1,30}", word):  # with a letter in it
        return None if word.casefold() in _NOTHING else word
    number = None if _HEDGE.search(reply) else find_number(reply)
    return f"{number:g}" if number is not None else None


def unwrap(answer: str) -> str:
    r"""An answer without what models wrap around it: \text{…}, $…$, quotes, brackets, a full stop."""
    short = unicodedata.normalize("NFKC", answer[:LONGEST_ANSWER])[:LONGEST_ANSWER]  # one sign may become eighteen
    answer = short.replace("{,}", "").replace("\\,", "")
    answer = _WRAPPER.sub(r"\1", answer).replace("\\$", "$").replace("\\%", "%")
    answer = re.sub(r"^[\s$\"'`*“”]+|[\s$\"'`*“”.。]+$", "", answer)
    return answer[1:-1].strip() if answer[:1] + answer[-1:] in ("{}", "[]") else answer


def normalise(answer: str) -> str:
    """Unwrapped, in lower case, one space between words."""
    return re.sub(r"\s+", " ", unwrap(answer)).casefold().strip()


def choice_letter(answer: str, choices: tuple[str, ...]) -> str | None:
    """The letter that an answer picks: "B", "(B)", "B. seven", or the option's own text; None where it picks none.

    A letter alone is that option's, even where it is also the text of another one.
    """
    letters, texts = LETTERS[: len(choices)], _normalised(choices)
    if (alone := _ALONE.fullmatch(unwrap(answer))) and alone[1].upper() in letters:
        return alone[1].upper()
    if (text := normalise(answer)) in texts:
        return letters[texts.index(text)]
    option = None if _SEVERAL.match(words := unwrap(answer)) else _OPTION.match(words)
    letter = (option[1] or option[2]).upper() if option else ""
    if option is None or letter not in letters:
        return None
    rest = words[option.end() :]
    denied = option[2] and not _NOT_OTHER.match(rest) and _VOID.search(_CLAUSE.split(rest)[0])
    return None if denied and not normalise(rest).startswith(texts[LETTERS.index(letter)]) else letter


@lru_cache(1024)  # a reply is compared with its question's options many times
def _normalised(choices: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(normalise(choice) for choice in choices[: len(LETTERS)])


def given(answer: str | None, choices: tuple[str, ...] = ()) -> str | None:
    """An extracted answer as it is handed out: the letter of the option that it picks, else as it stands."""
    return choice_letter(answer, choices) or answer if answer is not None else None


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
    words = words.replace(" ", "") if _SPACED.fullmatch(words) else words
    found = [float(number.replace(",", "")) for number in _NUMBER.findall(words)]
    found += [float(WORDS.index(word)) for word in re.findall(r"[a-z]+", words) if word in WORDS]
    return found[0] if len(found) == 1 else None
