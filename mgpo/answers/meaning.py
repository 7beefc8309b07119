"""Whether an answer is the right one: the option's letter, the same number, time or date, or the same words."""

import re

from mgpo.answers.moments import date_of, time_of
from mgpo.answers.numbers import BOUND, only_number, value
from mgpo.answers.options import choice_letter, first_alike
from mgpo.answers.phrases import VOID
from mgpo.answers.wording import UNITS, normalise

# yes and no at an answer's beginning; "no parking" is not no
YES_NO = re.compile(r"\W*(yes\b|no\b(?=\s*(?:[.,;:!\n—–]|$|there\b|it\b))(?!\.\s?\d+\W*$))", re.IGNORECASE)
_YES = {
    "yes", "yeah", "yep", "ja", "oui", "si", "sí", "sim", "да", "是", "是的", "有", "はい", "예", "네", "evet", "हाँ",
    "نعم",
}  # fmt: skip
_NO = {
    "no", "nope", "nah", "nein", "non", "não", "nee", "нет", "否", "不", "不是", "没有", "いいえ", "아니요", "hayır",
    "नहीं", "لا",
}  # fmt: skip
_AMBIGUOUS = ("si", "sim")  # on a sign, or in a formula
_THINGS = r"(?:\w{2,20} )?(?:\w{2,20}s|people|(?:wo)?men|children|sheep|fish)(?: (?:at all|visible|there|here))?"
_NOBODY = "nobody(?: is)?(?: (?:there|here|visible))?"
_NONE = re.compile(
    rf"(?:there (?:is|are) )?(?:none|nothing|{_NOBODY}|zero|no {_THINGS}|not any(?: {_THINGS})?)"
    rf"|there (?:is|are)n't any(?: {_THINGS})?|keine[rs]?|aucune?|ningun[ao]|nessun[ao]|nenhuma?|geen|没有|无"
)
_ABSENT = re.compile(
    r"(?:there (?:is|are) no|there (?:is|are)n't any) (?!doubt|question|denying|way|reason|other)"
    r"(?!.*(?:\b(?:and|but|except|without)\b|:)).{1,60}\Z"
)
_SUM = re.compile(r"[\d\s+×*/().-]{1,99}=\s?(\S{1,20})")  # "3 + 4 = 7"
_LOOSE_SIGN = re.compile(r"(?:#\s?(\S+)|(\S+) [$€£¥°])")  # a sign that may be left out
_RATE = re.compile(r"(\S+ [$€£¥])(?:\s?/\s?| (?:per|an?) )[^\W\d]+|(\S+ [$€£¥]) each")
_COMMA = re.compile(r"[-+]?\d{1,15},\d{1,2}")  # "1,5"
_EXTENT = re.compile(r" (?:tall|high|long|wide|deep|thick|old|away|apart)\Z")  # "2 m tall"
_BEYOND = re.compile(r"\b(?:before|after|until|till|from|since|past|no|and|plus|near|opposite|beyond|behind)\b|[/,]")
_MEASURE = re.compile(rf"(\S+) ({'|'.join(map(re.escape, UNITS))})")
_ABOUT = re.compile(r"\A(?:(?:about|around|approximately|approx|roughly|nearly|almost|some) |[~≈] ?)")
_LED = re.compile(rf"\s*(?:{_ABOUT.pattern[2:]})?[-+−]?[$€£¥]?\s?\.?\d", re.IGNORECASE)
_BEHIND = re.compile(r"\d[\d.,/]* ?([^\s\d.,/]\S*)")
_SIGNS = ("$", "€", "£", "¥", "°", "%")  # that may be left out
_SEAM = re.compile(r"(?<=\d)[ -](?=[^\W\d_])|(?<=[^\W\d_])(?<!\de)[ -](?=\d)")  # "KX52 LMN"


def given(answer: str | None, choices: tuple[str, ...] = ()) -> str | None:
    """An extracted answer as it is handed out: the letter of the option that it picks, else as it stands."""
    return choice_letter(answer, choices) or answer if answer is not None else None


def is_right(answer: str | None, truth: str, choices: tuple[str, ...] = ()) -> bool:
    """Whether an extracted answer is the right one: the option's letter, or what means the same as the truth.

    Without options an answer may say more than a truth that is a number, time, measure, price or code ("12 cars" is 12,
    "gate A12" is A12), but never less: "5" is not "5 km".
    """
    if answer is None or not truth.strip():
        return False
    if choices:
        return first_alike(choice_letter(answer, choices), choices) == first_alike(truth, choices)
    if answer.strip() == truth.strip() or _same(normalise(answer), normalise(truth)):
        return True
    comma = _COMMA.fullmatch(answer.strip(" .$"))  # as a number in its own right it may be two of them
    return comma is not None and _same(comma[0].replace(",", "."), normalise(truth))


def _same(answer: str, truth: str) -> bool:
    if not answer or not truth:
        return False
    if _spaced(answer) == _spaced(truth):
        return True
    if truth not in _AMBIGUOUS and (meant := yes_or_no_word(truth)) is not None:
        return (_yes_or_no(answer) or ("no" if _ABSENT.match(answer) else None)) == meant
    for reading in (time_of, date_of):
        if (read := reading(truth)) is not None and read == reading(answer):
            return True
    ours, theirs = _MEASURE.fullmatch(answer), _MEASURE.fullmatch(truth)
    if ours and theirs and ours[2] == theirs[2] and (size := value(ours[1])) is not None:
        return size == value(theirs[1])
    number = value(answer)
    if (right := value(truth)) is not None:
        return right == (_count(answer) if number is None else number)
    if (rate := _RATE.fullmatch(answer)) is not None and truth == (rate[1] or rate[2]):  # "$5 per pound"
        return True
    if _says_more(answer, truth):
        return True
    loose = _LOOSE_SIGN.fullmatch(truth)
    return number is not None and loose is not None and value(loose[1] or loose[2]) == number


def _says_more(answer: str, truth: str) -> bool:
    """Whether an answer ends in a truth that is a time or measure, or holds one that is a code, and no other number."""
    ends = time_of(truth) is not None or _MEASURE.fullmatch(truth) is not None
    numbers = [word for word in answer.split() if any(sign.isdigit() for sign in word)]
    if len(numbers) != 1 or numbers[0] not in truth.split():
        return False
    found = f" {_EXTENT.sub('', answer)}".endswith(f" {truth}") if ends else truth in answer.split()
    return found and not any(rule.search(answer) for rule in (BOUND, VOID, _BEYOND))


def _spaced(words: str) -> str:
    """Words with one way to write hyphens and codes: "KX52 LMN" and "KX-52 LMN" are "kx52lmn"."""
    return _SEAM.sub("", words).replace("-", " ")


def yes_or_no_word(word: str) -> str | None:
    """Of a word in lower case that means one of the two in some language, which; None for any other."""
    return "yes" if word in _YES else "no" if word in _NO else None


def _yes_or_no(answer: str) -> str | None:
    if (said := yes_or_no_word(answer)) is not None:
        return said
    first, *more = answer.split()
    if first in _YES | _NO and more[:1] == ["and"] and not set(more) & (_YES | _NO):  # "ja, …"
        return "yes" if first in _YES else "no"
    match = YES_NO.match(answer)
    return match[1] if match and not {"yes", "no"} <= set(re.findall(r"\w+", answer)) else None


def _count(answer: str) -> float | None:
    sum_of = _SUM.fullmatch(answer)
    return 0.0 if _NONE.fullmatch(answer) else only_number(sum_of[1] if sum_of else answer)


def vote_of(answer: str | None, choices: tuple[str, ...] = ()) -> str | None:
    """What an answer stands for, so that equal ones can be counted: an option's letter, a number, or words.

    None where there is no answer, or where it picks none of the options.
    """
    if answer is None:
        return None
    if choices:
        return first_alike(choice_letter(answer, choices), choices)
    words = normalise(answer)
    if words and (said := _yes_or_no(words)) is not None:
        return said
    for reading in (time_of, date_of):
        if (read := reading(words)) is not None:
            return str(read)
    number = value(words)
    number = _count(words) if number is None else number
    return repr(number) if number is not None else _spaced(words) or None


def is_number(answer: str, truth: str, relative: float = 0.0, absolute: float = 0.0) -> bool:
    """Whether an answer holds one number that is near enough to the truth's; equal by default.

    The truth is a number or begins with one ("12 red cars", "about 3.5 V"): it is never a name, time or date. Its unit
    has to be the answer's too, but that signs of money, degrees and percent may be left out.
    """
    words, said = normalise(truth), normalise(answer)
    if value(words) is None and (_LED.match(truth) is None or time_of(words) or date_of(words)):
        return False
    given, right = only_number(said), only_number(_ABOUT.sub("", words))
    ours, theirs = _unit_of(said), _unit_of(words)
    if given is None or right is None or not (ours == theirs or (not ours and theirs in _SIGNS)):
        return False
    return abs(given - right) <= max(absolute, relative * abs(right))


def _unit_of(words: str) -> str:
    """What stands behind the first number, where it is a unit and not what is counted."""
    found = _BEHIND.search(words)
    unit = found[1].rstrip(".,;:") if found else ""
    short = unit.isascii() and (len(unit) < 3 or not unit.isalpha())
    return unit if unit in UNITS or (short and unit not in ("of", "to", "or")) else ""


def find_number(text: str) -> float | None:
    """The only number in a short text: "1,200", "about 12 cars", "twelve"; None where there is none, or two."""
    return only_number(normalise(text))
