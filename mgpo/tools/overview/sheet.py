"""A page of pictures with their questions, as one HTML file that needs nothing from outside and runs nothing."""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from html import escape
from itertools import zip_longest
from pathlib import Path

from mgpo.answers import LETTERS
from mgpo.gallery.html_page import asset, html_page, shorten
from mgpo.gallery.thumbnails import picture_uri
from mgpo.images.decoding import BadImage
from mgpo.tools.overview.facts import Fact
from mgpo.utils.atomic_files import write_text
from mgpo.utils.terminal_tables import printable

ROWS = 24
TEXT = 300  # characters of a question, a choice, an answer, a reason


def write_sheet(path: Path, facts: Sequence[Fact], title: str) -> None:
    """Write a page of some of the questions, whose texts may be anything."""
    title, cards = printable(title), "\n".join(map(card, some(facts, ROWS)))
    body = f"<h1>{escape(title)}</h1>\n<ul>\n{cards}\n</ul>\n"
    page = html_page(title, asset("sheet.css", "mgpo.tools.overview"), body)
    write_text(path, page)


def some(facts: Sequence[Fact], count: int) -> list[Fact]:
    """At most so many: one of each split, source and category in turn."""
    groups: dict[tuple[str, str, str], list[Fact]] = defaultdict(list)
    for fact in facts:
        groups[fact.question.split, fact.question.source, fact.question.category].append(fact)
    turns = [fact for turn in zip_longest(*groups.values()) for fact in turn if fact is not None]
    return turns[:count]


def card(fact: Fact) -> str:
    """One question as an item of a list."""
    return "<li>" + "".join(_lines(fact)) + "</li>"


def _lines(fact: Fact) -> Iterator[str]:
    question, why = fact.question, fact.why
    for picture in question.pictures[: len(fact.sizes)]:
        try:
            yield f'<img alt="" src="{picture_uri(picture.load())}">'
        except BadImage as error:
            why = str(error)
    yield _text(question.text)
    for letter, choice in zip(LETTERS, question.choices):
        yield _text(f"({letter}) {choice}")
    yield _text(" or ".join((question.answer, *question.accepted)), "right")
    named = (question.split, question.source, question.category, question.id)
    yield _text(" · ".join(shorten(name, 60) for name in named if name), "small")
    if fact.sizes:
        seen = [f"{size[0]} x {size[1]}, first seen at {view[0]} x {view[1]}" for size, view in fact.sizes]
        yield _text(f"{'; '.join(seen)}; {fact.tokens:,} tokens", "small")
    if why is not None:
        yield _text(f"left out: {why}", "why")


def _text(text: str, kind: str = "said") -> str:
    return f'<p class="{kind}">{escape(printable(shorten(text, TEXT)))}</p>'
