"""Which of its question's options an answer picks."""

import re
import string
from functools import lru_cache

from mgpo.answers.moments import time_of
from mgpo.answers.numbers import only_number, value
from mgpo.answers.phrases import CLAUSE, DENIED, LEAD, VOID
from mgpo.answers.wording import QUOTES, normalise, unwrap

LETTERS = string.ascii_uppercase
_NOT_OTHER = re.compile(
    r"\W{0,3}(?:and\s)?(?:not|rather\sthan|instead\sof)\s\(?[A-Z]\b|\s?\([A-Z]\sis\s(?:not|wrong|false)\b"
)  # "B (not C)"
# "B", "(b)", "B. blue", "A because …", "A - red"; more loosely "B blue", "A is …", but not "A dog"
_OPTION = re.compile(
    r"[(\[]?(?:([A-Za-z])(?:[)\].:,]|\s*$|\s+(?:because|since|as(?!\swell)|for)\b|\s+[-–—=]+>?\s|"
    r"(?=\s?[^\x00-\u036f\u2010-\u2027]))|([A-Za-z])(?=\s+is\b|(?<![AIai])\s))"
)
LETTER = re.compile(r"(?<![A-Za-z0-9À-ɏ'’])[A-Z](?![A-Za-z0-9À-ɏ'’])")  # alone, or beside signs of another script
_SIGNED = re.compile(r"[)\].:=>–—-]\s*\Z")  # "B: red", which contradicts itself where that is A
_ALONE = re.compile(r"[(\[]?([A-Za-z])[)\].:!]{0,2}")
_BEHIND = re.compile(r"(.{1,200}?)\s?[(\[]([A-Z])[)\]]")  # "blue (B)"
_FEW = re.compile(r"\W*[A-Z]\W?\s{0,3}(?:[,/&+、;|]|\bor\b|\band\b|\bund\b|\boder\b|或|和)\s{0,3}\(?[A-Z]\b(?!['’])")
# "B as well as C", "B - or C", where nothing sets the two apart as in "B over C"
_TWO = re.compile(r"\W*([A-Z])(?:\W{1,5}[^\W\d_]{2,15}|\W{1,5}[a-zà-ɏ](?=\s)){0,3}\W{1,5}([A-Z])\W*")
_APART = re.compile(
    rf"{DENIED.pattern}|\b(?:over|than|because|since|so|thus|therefore|is|means)\b|[=→⇒]", re.IGNORECASE
)
# "B: wrong", "(B) is incorrect", "B ✗"
_VERDICT = re.compile(
    r"\W*(?:(?:is|seems|looks)\s)?(?:wrong|incorrect|false|nope|no|out|excluded|not\s(?:it|right|correct))\W*|\W*[✗✘❌]\W*",
    re.IGNORECASE,
)
_MARKED = re.compile(r"(?<![\w'’])(?:\([A-Z]\)|[A-Z][.):](?!\w{2}))|(?<=\bor\s)[A-Z]\b(?!['’])")
_TAKEN = re.compile(
    r"\s*[-–—:,;.]?\s*(?:(?:is|was|seems|looks)\s)?"
    r"(?:not(?=\s(?:it|right|correct|so)\b|\W*\Z)|(?:wrong|incorrect|false|excluded)\b)|\s?\?"
)
_IT = re.compile(r"(?:it|this|that)(?: is|'s)? ")
MOST_WORDS = 4  # around a number that is an option
_NEITHER = re.compile(
    r"(?:none|neither)(?: of (?:above|these|those|them|(?:other )?options|choices))?(?: (?:above|listed|options))?"
    r"(?: (?:match(?:es)?|fits?|appl(?:y|ies)|(?:is|are) (?:correct|right)))?"
)
_ALL = re.compile(r"all(?: of)? (?:above|these|those|them|options)")
_PLACES = ("1st", "2nd", "3rd", "4th", "5th", "6th")
_PLACED = re.compile(rf"({'|'.join(_PLACES)}|last) (?:option|choice|answer|one|1)")  # "1" is "one" in digits


def choice_letter(answer: str, choices: tuple[str, ...]) -> str | None:
    """The letter that an answer picks: "B", "(B)", "B. seven", or the option's own text; None where it picks none.

    A letter alone is that option's, even where it is also the text of another one.
    """
    words = unwrap(answer)
    if letter := _named(words, choices):
        return letter
    lead = LEAD.match(words)
    if lead and not VOID.search(lead[0]):
        rest = words[lead.end() :].strip(QUOTES + " .")
        if letter := _named(rest, choices) or _lettered(rest, choices):
            return letter
    behind = _BEHIND.fullmatch(words)
    if behind and named_by_text(behind[1], choices) == behind[2]:
        return behind[2]
    return _lettered(words, choices)


def _named(words: str, choices: tuple[str, ...]) -> str | None:
    alone = _ALONE.fullmatch(words)
    return alone[1].upper() if alone and alone[1].upper() in LETTERS[: len(choices)] else named_by_text(words, choices)


def _lettered(words: str, choices: tuple[str, ...]) -> str | None:
    """The option whose letter an answer begins with."""
    option = None if _FEW.match(words) else _OPTION.match(words)
    letter = (option[1] or option[2]).upper() if option else ""
    letters, texts = LETTERS[: len(choices)], texts_of(choices)
    if option is None or letter not in letters:
        letter = words[:1].upper()  # "A red" is A where that is red
        spelt = (
            words[1:2] == " " and letter and letter in letters and normalise(words[2:]) == texts[letters.index(letter)]
        )
        return letter if spelt else None
    rest = words[option.end() :]
    if option[2] and re.match(r"\s*\(?[A-Z]\b\)?(?!['’])", rest) and rest.split()[0].strip("().,") in letters:
        return letter if _NOT_OTHER.match(rest) else None  # "B C"
    text = texts[letters.index(letter)]
    said = normalise(rest)
    if text and said == text:
        return letter
    if said in texts and _SIGNED.search(option[0]) and normalise(words.lstrip("([")[1:]) != text:
        return None
    others = {found.strip("().:") for found in _MARKED.findall(rest)} & set(letters) - {letter}
    if others and not _APART.search(rest):
        return None
    if text and said.startswith(text):
        return None if _TAKEN.match(said[len(text) :]) else letter
    if _VERDICT.fullmatch(rest):
        return None
    two = _TWO.fullmatch(words)
    if two and two[1] != two[2] and two[2] in letters and not _APART.search(words):
        return None
    unmarked = option[0].lstrip("([").upper() == letter  # only a sign behind a letter parts it from what follows
    if unmarked and not option[2] and set(LETTER.findall(CLAUSE.split(rest)[0])) & set(letters):
        return None  # "A या B"
    denied = unmarked and not _NOT_OTHER.match(rest) and VOID.search(CLAUSE.split(rest)[0])
    return None if denied else letter


def named_by_text(answer: str, choices: tuple[str, ...]) -> str | None:
    """The option whose text an answer is, or means: the same words, the same number or time, "none of the above"."""
    text, letters, texts = normalise(answer), LETTERS[: len(choices)], texts_of(choices)
    if answer in choices:
        return letters[choices.index(answer)]
    for said in (text, _IT.sub("", text)):
        if said in texts:
            return _only([letter for letter, other in zip(letters, texts) if other == said], choices)
    if placed := _PLACED.fullmatch(_IT.sub("", text)):
        if any(placed[1] in other.split() for other in texts):  # "the second one" of "first floor", "second floor"
            return None
        place = len(letters) - 1 if placed[1] == "last" else _PLACES.index(placed[1])
        return letters[place] if place < len(letters) else None
    for alike in (_NEITHER, _ALL):
        if alike.fullmatch(text):
            return _only([letter for letter, other in zip(letters, texts) if alike.fullmatch(other)], choices)
    for reading in (value, time_of):
        if (read := reading(text)) is not None:
            return _only([letter for letter, other in zip(letters, texts) if reading(other) == read], choices)
    return counted(text, choices) if len(text.split()) <= MOST_WORDS else None


def counted(text: str, choices: tuple[str, ...]) -> str | None:
    """The letter of the option that a text's one number is, as in "3 people"; None unless all options are numbers."""
    numbers = [value(other) for other in texts_of(choices)]
    if None in numbers or re.search(r"\b(?:option|choice|answer)\b", text):
        return None
    number = only_number(text)
    return _only([letter for letter, other in zip(LETTERS, numbers) if other == number], choices)


def _only(found: list[str], choices: tuple[str, ...]) -> str | None:
    return found[0] if len({first_alike(letter, choices) for letter in found}) == 1 else None


def first_alike(letter: str | None, choices: tuple[str, ...]) -> str | None:
    """The letter of the first option with the text of this letter's: two options of one text are the same answer."""
    if letter is None or letter not in [*LETTERS[: len(choices)]]:
        return letter
    return LETTERS[choices.index(choices[LETTERS.index(letter)])]


@lru_cache(1024)  # a reply is compared with its question's options many times
def texts_of(choices: tuple[str, ...]) -> tuple[str, ...]:
    """The options' texts as `normalise` leaves them, for as many as have a letter."""
    return tuple(normalise(choice) for choice in choices[: len(LETTERS)])
