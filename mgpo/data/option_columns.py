"""Choices as data sets write them: lists, objects, texts of these, "(A) red" in a list, or behind the question."""

import ast
import json
import re
from itertools import pairwise
from typing import Any, NamedTuple

from mgpo.answers import LETTERS, choice_letter, normalise, unwrap
from mgpo.answers.options import named_by_text
from mgpo.data.base import DataError
from mgpo.data.row_source import check_choices, shown, text

_LETTERED = re.compile(r"\s*[(（]?([A-Za-z])[)）.:]\s*(.*)", re.DOTALL)
_LABELLED = re.compile(r"\s*[(（]?(\w{1,9})[)）.:](?!\d)\s*(.+)", re.DOTALL)
_MARK, _SMALL_MARK = re.compile(r"[(（]([A-Z])[)）]"), re.compile(r"\(([a-z])\)")
_BARE = re.compile(r"(?<![\w(（.])(?:(?:[Oo]ption|[Cc]hoice)\s)?([A-Z])[).:、．：](?=\s*\S)")
_SMALL_BARE = re.compile(r"(?<![\w(.])([a-z])[).](?=\s*\S)")
_HEADER = re.compile(r"(?:^|(?<=[\s?.!]))(?:the )?(?:answer )?(?:options|choices)(?: are)?\s?[:：]\s*$", re.IGNORECASE)
_INSTRUCTION = re.compile(
    r"(?:^|(?<=[\s.;]))\(?(?:please )?(?:answer|select|choose|pick|respond|reply|give|provide|output)\b"
    r"[^()]{0,80}\b(?:letters?|options?|choices?|directly|answer)\b[^()]{0,80}$|^(?:the )?(?:best )?answer\s?[:.]?$",
    re.IGNORECASE,
)
_NO_CHOICE = {"", "or", "and", "vs", "versus", "to", "from"}
LONGEST_LIST = 10_000  # characters of a list that stands in a text


class Split(NamedTuple):
    """A text taken apart: what stands before choices and behind them, and where they begin."""

    question: str
    choices: tuple[str, ...]
    behind: str
    begin: int


def split_choices(text: str) -> tuple[str, tuple[str, ...]]:
    """The question and its choices, of "What colour? (A) red (B) blue", on one line or each on its own.

    Choices are lettered from (A), or A. or A), without a gap; where they stand on lines, what follows the
    last one's line (an instruction how to answer) is left out. Raises DataError where there are none.
    """
    for form in (_MARK, _BARE):
        if (found := _split(text, list(form.finditer(text)))) is not None:
            return found.question, check_choices("text", found.choices)
    raise DataError("no choices (A), (B), … stand in the text")


def find_choices(text: str) -> tuple[str, tuple[str, ...]] | None:
    """As `split_choices`, where it is plain that they are choices: on lines of their own, or behind the question.

    "Is (A) or (B) larger?" and "Is it by J. A. Smith or B. Jones?" have none. What follows them stays in the question,
    unless it says how to answer.
    """
    if len(text) > LONGEST_LIST:
        return None
    for form, ends in ((_MARK, "?.:!？。：！"), (_BARE, "?:？："), (_SMALL_MARK, "?:"), (_SMALL_BARE, "")):
        marks = list(form.finditer(text))
        lines = [mark for mark in marks if not text[: mark.start()].rpartition("\n")[2].strip(" \t-*•")]
        for some in (lines, marks):
            found = _split(text, some)
            if found is not None and _is_plain(text[: found.begin].rstrip(" \t-*•"), found, ends):
                behind = "" if _INSTRUCTION.search(found.behind) else found.behind
                return f"{found.question}\n{behind}".strip(), found.choices
    return None


def has_letters(text: str) -> bool:
    """Whether both an A and a B are marked in a text as choices are."""
    return any({"A", "B"} <= {mark[1] for mark in form.finditer(text)} for form in (_MARK, _BARE))


def _split(text: str, marks: list[re.Match[str]]) -> Split | None:
    """By the marks from the last A on, as far as letters follow each other."""
    start = max((i for i, mark in enumerate(marks) if mark[1].upper() == "A"), default=None)
    if start is None:
        return None
    run = [mark for mark, letter in zip(marks[start:], LETTERS) if mark[1].upper() == letter]
    if len(run) < 2:
        return None
    ends = [mark.start() for mark in run[1:]] + [len(text)]
    choices = [" ".join(text[mark.end() : end].split()) for mark, end in zip(run, ends)]
    last, _, behind = text[run[-1].end() :].strip().partition("\n")
    choices[-1] = _INSTRUCTION.sub("", last).strip()
    begin = run[0].start()
    question = _HEADER.sub("", re.sub(r"\n[-*•]\s*$", "", text[:begin].rstrip())).strip()
    return Split(question, tuple(re.sub(r"\s[-*•]$", "", choice) for choice in choices), behind.strip(), begin)


def _is_plain(before: str, found: Split, ends: str) -> bool:
    """Whether the text before them ends as one that choices follow, and they can be choices."""
    if before and before[-1] not in f"\n{ends}":
        return False
    words = [choice.strip(" .,;?!").casefold() for choice in found.choices]
    asks = any("?" in choice for choice in found.choices) and not before.rstrip().endswith("?")
    return not asks and len(words) <= len(LETTERS) and not _NO_CHOICE & set(words)


def choices_of(column: str, value: Any) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """A cell's choices, and the labels by which answers may name them; none of a plain list.

    A list of texts or numbers, with or without letters before them; an object with a label for each, {"A": "red", …},
    {"label": ["A", …], "text": ["red", …]} or a list of {"label": "A", "text": "red"}; or a text of any of these.
    Raises DataError for others.
    """
    if isinstance(value, str):
        value = _parse(column, value) if value.strip() else None
    if value is None or value == [] or value == {}:
        return (), ()
    if isinstance(value, list) and all(isinstance(choice, dict) for choice in value):
        value = _by_label(value)
    if isinstance(value, dict):
        return _of_object(column, value)
    if not isinstance(value, list) or any(isinstance(choice, list | dict | bool) or choice is None for choice in value):
        raise DataError(f"column {column}: a list of texts is needed, not {shown(value)}")
    try:
        choices = lettered(column, value)
        return choices, tuple(LETTERS[: len(choices)])
    except DataError:
        return check_choices(column, [text(choice, column) for choice in value]), _letters_with_gaps(value)


def _letters_with_gaps(value: list[Any]) -> tuple[str, ...]:
    """The labels of ["A. red", "C. blue"], where an answer "C" is no place in the list; none of other lists."""
    found = [_LETTERED.fullmatch(choice) if isinstance(choice, str) else None for choice in value]
    letters = tuple(match[1].upper() for match in found if match)
    rising = len(letters) == len(value) and letters[0] == "A" and all(a < b for a, b in pairwise(letters))
    return letters if rising else ()


def _by_label(objects: list[dict[str, Any]]) -> Any:
    """One object of many that have a label and a text each; the list itself where they have other keys."""
    if not all(set(one) == {"label", "text"} for one in objects):
        return objects
    return {name: [one[name] for one in objects] for name in ("label", "text")}


def _of_object(column: str, value: dict[str, Any]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    names = {str(name).lower(): part for name, part in value.items()}
    if set(names) in ({"label", "text"}, {"labels", "texts"}) and all(
        isinstance(part, list) for part in names.values()
    ):
        labels, texts = (next(names[name] for name in names if name.startswith(kind)) for kind in ("label", "text"))
        pairs = [(str(label), choice) for label, choice in zip(labels, texts)] if len(labels) == len(texts) else []
    else:  # a table has every label that any of its rows has
        pairs = [(str(label), choice) for label, choice in value.items() if choice is not None and choice != ""]
    if any(isinstance(choice, list | dict | bool) for _, choice in pairs):
        raise DataError(f"column {column}: a text for each label is needed, not {shown(value)}")
    alphabet = "".join(sorted(label.strip("(). ").upper() for label, _ in pairs))
    if alphabet and alphabet == LETTERS[: len(pairs)]:
        pairs = sorted((label.strip("(). ").upper(), choice) for label, choice in pairs)
    choices = check_choices(column, [text(choice, column) for _, choice in pairs])
    return choices, tuple(label for label, _ in pairs)


def letter_of(
    answer: str, choices: tuple[str, ...], labels: tuple[str, ...] = (), index_base: int | None = None
) -> str | None:
    """The letter of the choice that an answer stands for: letter, label, text, or its number from `index_base`.

    None where it stands for none, or for two.
    """
    if index_base is not None and re.fullmatch(r"-?\d{1,3}(?:\.0*)?", counted := unwrap(answer)):
        index = int(float(counted)) - index_base
        return LETTERS[index] if 0 <= index < len(choices) else None
    by_text = named_by_text(answer, choices)
    letters = any(len(_bare(label)) == 1 and _bare(label).isalpha() for label in labels)
    if (by_label := _labelled(answer, choices, labels)) is not None:
        return by_label if letters or by_text in (None, by_label) else None
    gaps = letters and "".join(map(_bare, labels)) != LETTERS[: len(labels)].casefold()
    letter = by_text if gaps else choice_letter(answer, choices)
    if not labels and len(answer) == 1 and by_text not in (None, letter):
        return None  # "A" of the choices K, B and A
    if letter is None:
        equal = [LETTERS[i] for i, choice in enumerate(choices) if _number(choice) == _number(answer) is not None]
        letter = equal[0] if len(equal) == 1 else None
    return letter


def _labelled(answer: str, choices: tuple[str, ...], labels: tuple[str, ...]) -> str | None:
    """The letter of the choice whose label an answer is, or has before its text: "c", "(C)", "C. blue"."""
    known = [_bare(label) for label in labels]
    marked = _LABELLED.fullmatch(answer)
    for said, behind in ((answer, None), (marked[1], marked[2]) if marked else ("", None)):
        if known.count(_bare(said)) == 1:
            place = known.index(_bare(said))
            unmarked = _LETTERED.fullmatch(choices[place])
            if behind is None or normalise(behind) in (normalise(choices[place]), unmarked and normalise(unmarked[2])):
                return LETTERS[place]
    return None


def _bare(label: str) -> str:
    return label.strip("(（).）:： ").casefold()


def _number(words: str) -> float | None:
    try:
        return float(words)
    except ValueError:
        return None


def lettered(column: str, value: Any) -> tuple[str, ...]:
    """The texts of ["(A) red", "(B) blue", …], also where that list stands in a text. Raises DataError."""
    if isinstance(value, str):
        value = _parse(column, value)
    value = value if isinstance(value, list) else []
    found = [_LETTERED.fullmatch(choice) if isinstance(choice, str) else None for choice in value]
    letters = "".join(match[1].upper() if match else "?" for match in found)
    if not found or letters != LETTERS[: len(found)]:
        raise DataError(f'column {column}: a list "(A) …", "(B) …" is needed, not {shown(value)}')
    return check_choices(column, [match[2].strip() for match in found if match])


def list_in(value: Any) -> list[str | float] | None:
    """A list that stands in a text, such as ["3", "three"], also with numbers among its texts; None where there is
    none, or one of other things or of numbers alone, which may be what a sign says."""
    found = _written(value.strip()) if isinstance(value, str) and value.lstrip().startswith("[") else None
    if not isinstance(found, list) or not any(isinstance(each, str) for each in found):
        return None
    return found if all(type(each) in (str, int, float) for each in found) else None


def _written(text: str) -> Any:
    """What stands in a text as JSON or as Python writes it; None where it is neither."""
    for read in (json.loads, ast.literal_eval):
        try:
            return read(text) if len(text) <= LONGEST_LIST else None
        except (ValueError, SyntaxError, MemoryError, RecursionError):
            continue
    return None


def _parse(column: str, text: str) -> Any:
    """A list or an object that stands in a text, or a list of lettered lines."""
    value = _written(text)
    if isinstance(value, list | dict):
        return value
    if (found := find_choices(text)) is not None and not found[0]:
        return list(found[1])
    raise DataError(f"column {column}: a list of choices is needed, not {text[:100]!r}")
