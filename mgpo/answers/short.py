"""Short replies that are an answer themselves."""

import re

from mgpo.answers.meaning import YES_NO, yes_or_no_word
from mgpo.answers.numbers import BOUND, only_number, value
from mgpo.answers.options import LETTER, LETTERS, choice_letter, counted, texts_of
from mgpo.answers.phrases import (
    CONTRAST,
    DENIED,
    FOREIGN,
    HEDGE,
    INTENT,
    NOTHING,
    OPENS_A_STEP,
    SILENT,
    STEP,
    VOID,
    any_of,
)
from mgpo.answers.wording import normalise, unwrap

LONGEST_SENTENCE = 120  # characters of a reply that is one plain statement
MOST_WORDS = 8  # of a reply that is no sentence
_LINE = re.compile(r"[(\[]?([A-Za-z])(?:[)\].:,]{1,2}(?:\s.*)?|)", re.DOTALL)
_MARKS = re.compile(r"(?<![\w'’])(?:\([A-Z]\)|[A-Z][.):])|^\W{0,3}[A-Z]\W{0,3}$", re.MULTILINE)
_PAIR = re.compile(r"[(\[]\s?-?\d+,\s?-?\d+\s?[)\]]")
_MENTION = re.compile(
    r"(?<![A-Za-z0-9À-ɏ'’])(\(?[A-Z]\)?)(?![A-Za-z0-9À-ɏ]|['’](?![dt][ıiuü]r\b))"
    r"(?!(?<=[AEIO])\s[a-zà-ɏ]{2}(?!\w{0,5}\s\(?[A-Z]\)?(?![\w'’])))"  # "A dog", but not "A eller B"
)
_PARTS = re.compile(
    r"[,.;:!]\s+|(?<!thing)(?<!all)\s+(?:but|sondern|sino|mais)\s+"
    r"|\s+(?=rather than|instead of|and not (?!only|just))|[，；。]"
)
_SENTENCES = re.compile(r"(?<=[.!;])\s+|(?<=[。；！])\s*(?=\S)")
_HEAD = re.compile(r"[,，、。!！]|\.(?!\s?\d)")  # behind the first word of "Ja, …"
_OPEN = re.compile(r"\bor\b|\?")
# A yes or no that is turned round, or taken up by the other: "Yes. Looking closer, there is none", "yes and no"
_TURNS = re.compile(
    r"(?:closer|second|again|actually|however)\b[^.!?]{0,60}\b(?:no|not|yes)\b|\bso\s(?:yes|no)\b|\bcan\shelp\b",
    re.IGNORECASE,
)
_BOTH = re.compile(r"\W{0,3}(?:(?:and|or)\s)?(?:yes|no)\b(?!\s\w)", re.IGNORECASE)
# In front of what "is", and at its end, these leave it open.
_IF = re.compile(r"\b(?:if|whether|imagine|suppose)\b", re.IGNORECASE)
_UNKNOWN = re.compile(r"\b(?:unknown|unclear)\W*$")
_BOUND_BEFORE = re.compile(rf"(?:{BOUND.pattern})(?:\s(?:than|of|to|the|a))?\s*\Z")
READS = any_of("say, says, read, reads, show, shows, display, displays, spell, spells, state, states")
_IS = any_of(
    "is, are, was, were, is called, is named, looks, look, looks like, seems, seem, appears, appear, appears to be, "
    "appear to be, seems to be"
)
# "The sign reads: EXIT", "It is red"
_STATED = re.compile(
    r"(?i:(?:.{0,80}?[\s,])?[^\W\d_]{2,15}(?:(?<=it)['’]s|(?<=that)['’]s|"
    rf"\s(?:({READS})|{_IS}))[:,]?\s{{1,3}}(.{{1,80}}))"
)
_DENIED_VERB = re.compile(r"(?:\b(?:not|never)|n['’]t)\s\w+[:,]?\s{1,3}$", re.IGNORECASE)
_NOBODY = re.compile(r"(?i:\W*(?:no|nobody|nothing|none|neither|there|what|who|where|which|how)\b)")
_VERBS = any_of(
    "is, are, was, were, be, been, can, could, will, would, shall, has, have, had, does, did, lies, lie, hangs, "
    "hang, stands, sits, see, sees, saw, count, counted, seem, seems, appear, appears, look, looks, contain, "
    "contains, say, says, read, reads, show, shows, feature, features, depicts, visible, es, sind, ist, est, sont, "
    "son, hay, il y a, it's, that's, there's, he's, she's, what's"
)
_SENTENCE = re.compile(rf"(?i:\b{_VERBS}\b)|\b(?:I|we)\s[a-z]\w|['’]m\b|图中|有")
_VAGUE = re.compile(
    r"(?i:\W*(?:there|here|based|visible|to\sbe|not|hard|too|unclear|unknown|located|seen|clear|as\sfollows|possible|that|"
    r"what|because|a\sbit)\b)"
)
_SURELY = re.compile(
    r"(?i:\s*(?:(?:i(?:['’]d|\swould)?\s(?:say|guess|think|believe)(?:\sthat)?|probably|most\slikely|likely|clearly|"
    r"definitely|certainly|so|thus|hence|therefore)[,:]?\s){1,3})"
)


def chosen(reply: str, choices: tuple[str, ...]) -> str | None:
    """The letter that a reply picks which says nothing but an option: its letter, its text, or a plain statement."""
    if letter := _left_over(reply, choices):
        return letter
    if len(_MARKS.findall(reply)) > 1:  # options are gone through, or listed
        return None
    line = reply.split("\n")[0].strip()
    if _LINE.fullmatch(line) and (letter := choice_letter(line, choices)):
        return letter
    words = f" {normalise(reply)}"
    if (said := _yes_or_no(reply)) and [text for text in texts_of(choices) if _holds(words, text)] == [said]:
        return choice_letter(said, choices)
    *before, line = reply.split("\n")
    if _LINE.fullmatch(line.strip()) and not VOID.search(" ".join(before)):
        return choice_letter(line, choices)
    if before or len(reply) > LONGEST_SENTENCE:
        return None
    return choice_letter(reply, choices) or _spoken_of(reply, choices) or _described(reply, choices)


def _left_over(reply: str, choices: tuple[str, ...]) -> str | None:
    """The letter that stands alone before or behind sentences that deny others: "Not A. B."."""
    if len(reply) > LONGEST_SENTENCE:
        return None
    parts, letters = _SENTENCES.split(reply.strip()), LETTERS[: len(choices)]
    denied, last = (parts[:-1], parts[-1]) if DENIED.search(parts[0]) else (parts[1:], parts[0])
    last = last.strip("()[].!。！ ")
    others = [set(LETTER.findall(part)) & set(letters) for part in denied]
    all_denied = all(1 <= len(DENIED.findall(part)) <= len(found) for part, found in zip(denied, others))
    return last if denied and all_denied and len(last) == 1 and last in set(letters).difference(*others) else None


def _spoken_of(reply: str, choices: tuple[str, ...]) -> str | None:
    """The only letter in a short reply that speaks of an answer, in whatever order its language has."""
    if not re.search(FOREIGN, reply, re.IGNORECASE) or any(rule.search(reply) for rule in (HEDGE, VOID, SILENT)):
        return None  # English has rules of its own
    letters = [match[1].strip("()") for match in _MENTION.finditer(reply)]
    return letters[0] if len(letters) == 1 and letters[0] in LETTERS[: len(choices)] else None


def _described(reply: str, choices: tuple[str, ...]) -> str | None:
    """The only option whose text a short statement ends in, once those that it denies are left out, or whose number it
    names."""
    if _OPEN.search(reply):
        return None
    meant = any(_intends(part) and re.search(r"\d", normalise(part)) for part in _PARTS.split(reply))
    plainly = not (meant or HEDGE.search(reply) or VOID.search(reply))
    if plainly and (letter := counted(normalise(reply), choices)):
        return letter
    texts, said, named, stands = texts_of(choices), "", set(), False
    for clause in filter(str.strip, _PARTS.split(reply)):
        words = f" {normalise(clause)}"
        found = {letter for letter, text in zip(LETTERS, texts) if _holds(words, text)}
        if found and VOID.search(clause):
            continue
        if HEDGE.search(clause) or VOID.search(clause) or (found and _intends(clause)):
            return None
        numbers = [text for letter, text in zip(LETTERS, texts) if letter in found and value(text) is not None]
        if any(_bounded(words, number) for number in numbers):
            return None
        said, named = words.removesuffix("的"), named | found
        stands = stands or any(_stands(clause.casefold(), texts[LETTERS.index(letter)]) for letter in found)
    if len(named) != 1:
        return None
    (letter,) = named
    return letter if stands or said.endswith(texts[LETTERS.index(letter)]) else None


def _intends(clause: str) -> bool:
    return bool(INTENT.search(clause) or OPENS_A_STEP.match(clause))


def _bounded(words: str, number: str) -> bool:
    """Whether a bound stands right in front of a number, or behind it: not in "the maximum speed is 50"."""
    before, _, behind = words.rpartition(number)
    return bool(BOUND.search(behind) or _BOUND_BEFORE.search(before))


def _stands(clause: str, text: str) -> bool:
    """Whether a clause says of its subject where it is, in an option's words: "is to the right of the bench"."""
    text = re.escape(text)
    side = rf"(?:to|on|at|in)\s(?:the\s)?{text}(?:[\s-]hand)?(?:\sside)?(?:\s(?:of|in|next)\b|\W*$)"
    place = rf"(?:{side}|{text}\s(?:of|the|an?)\b)"
    return re.search(rf"(?:(?<!that\s)(?<!which\s)(?<!who\s)\b(?:is|are)|['’]s)\s{place}", clause) is not None


def _holds(words: str, text: str) -> bool:
    """Whether words hold an option's text as words of their own; Chinese and Japanese have no spaces."""
    spaced = text[:1] < "\u2e80"
    return re.search(rf"\W{re.escape(text)}(?!\w)" if spaced else re.escape(text), words) is not None


def plain(reply: str) -> str | None:
    """A short reply that is an answer itself: yes or no, a few words, or a statement with one number or one saying."""
    if said := _yes_or_no(reply):
        return said if YES_NO.match(reply) else _HEAD.split(reply, maxsplit=1)[0].strip()
    if not reply or "\n" in reply or len(reply) > LONGEST_SENTENCE:
        return None
    if STEP.search(reply):
        return None
    if SILENT.search(unwrap(reply) if "\\" in reply else reply):
        return None
    reply = _SURELY.sub("", reply, count=1) if _SURELY.match(reply) else reply
    words = reply if _PAIR.fullmatch(reply) else unwrap(reply)
    if normalise(words) in NOTHING or not re.search(r"\w", words):
        return None
    if not _SENTENCE.search(words):
        words = CONTRAST.sub("", words, count=1)
        return words if len(words.split()) <= MOST_WORDS else None
    return _stated(reply) or (words if re.match(r"(?i:there (?:is|are) (?:no\s|none\b|not\sany\b))", words) else None)


def _yes_or_no(reply: str) -> str | None:
    match = YES_NO.match(reply)
    head = _HEAD.split(reply, maxsplit=1)[0]
    said = match[1].casefold() if match else yes_or_no_word(head.strip().casefold())
    rest = reply[match.end() if match else len(head) :]
    if said is None or rest.startswith("?"):
        return None
    turn = _TURNS.search(rest)
    turned = turn and not turn[0].casefold().endswith(said)  # "no, actually there is no …" is not
    intends = INTENT.search(re.split(r"[.?!]", rest)[0])
    return None if _BOTH.match(rest) or turned or intends else said


def _stated(reply: str) -> str | None:
    """What a sentence says that something is or reads, or its only number."""
    stated = _STATED.fullmatch(reply)
    if stated is None or not stated[1]:  # what something reads is left whole
        reply = CONTRAST.sub("", reply, count=1)
        stated = None if _NOBODY.match(reply) else _STATED.fullmatch(reply)
    if stated is not None and not stated[1]:
        before = reply[: stated.start(2)]
        if _IF.search(before) or VOID.search(before) or _UNKNOWN.search(stated[2]):
            return None
    if stated is not None and _DENIED_VERB.search(reply[: stated.start(2)]):
        return None
    if stated is not None and len(stated[2].split()) <= MOST_WORDS:
        vague = _VAGUE.match(stated[2]) or HEDGE.search(stated[2])
        if stated[1] or not vague:
            return unwrap(stated[2])
    number = None if HEDGE.search(reply) else only_number(normalise(reply))
    return f"{number:g}" if number is not None else None
