"""A page of an audit: its tables, and of some questions what was shown in every kind and what was answered."""

from collections import Counter
from collections.abc import Iterator
from html import escape
from pathlib import Path

from PIL import Image

from mgpo.answers import LETTERS
from mgpo.evaluation.audit import ALONE, DISTRACTOR, KINDS, Audited
from mgpo.evaluation.audit_summary import Row
from mgpo.gallery.drawing import BAD, GOOD, framed
from mgpo.gallery.html_page import asset, html_page, shorten
from mgpo.gallery.thumbnails import picture_uri
from mgpo.images.decoding import BadImage
from mgpo.metrics import CROP, NO_TOOLS
from mgpo.tools.audit.audit_table import words_for
from mgpo.utils.atomic_files import write_text
from mgpo.utils.terminal_tables import printable

EACH = 4  # questions of every outcome
TEXT = 300  # characters of a question or an answer
NEVER_LOOKED = "no crop was shown"


class Cards:
    """Some questions of every outcome, made into markup while their pictures are at hand."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self.made: list[tuple[str, str]] = []

    def offer(self, one: Audited, row: Row) -> None:
        """Take a question in, unless there are enough of its outcome or its picture is gone by now."""
        outcome = outcome_of(row)
        if self.counts[outcome] < EACH:
            try:
                self.made.append((outcome, "".join(_card(one, row, outcome))))
            except BadImage:
                return
            self.counts[outcome] += 1

    def write(self, path: Path, title: str, tables: str) -> None:
        """Write the page: one file that needs nothing from outside and runs nothing."""
        title = printable(title)
        cards = "\n".join(markup for _, markup in sorted(self.made, key=lambda card: card[0]))
        head = f'<header>\n<p class="eyebrow">Are the crops used?</p>\n<h1>{escape(title)}</h1>\n</header>\n'
        body = f"{head}<pre>{escape(printable(tables))}</pre>\n<main>\n{cards}\n</main>\n"
        page = html_page(title, asset("audit.css", "mgpo.tools.audit"), body)
        write_text(path, page)


def outcome_of(row: Row) -> str:
    """What is most worth seeing of a question."""
    if not row["regions"]:
        return NEVER_LOOKED
    alone = row["kinds"].get(ALONE, {}).get("right")
    if row[CROP] and alone is False:
        return "right, but the crop alone is not"
    if row[CROP] and DISTRACTOR in row["kinds"]:
        return "right, and with a distractor " + ("its answer" if row["distractor_taken"] else "another answer")
    if row[CROP]:
        return "right, with black in place of the crop " + ("too" if _stays(row) else "no longer")
    return "wrong, but the crop alone is right" if alone else "wrong"


def _stays(row: Row) -> bool:
    return bool(row["kinds"].get("black", {}).get("right"))


def _card(one: Audited, row: Row, outcome: str) -> Iterator[str]:
    question, trajectory = one.trajectory.question, one.trajectory
    yield f'<article><p class="eyebrow">{escape(outcome)}</p><h2>{_said(question.text)}</h2>'
    for letter, choice in zip(LETTERS, question.choices):
        yield f"<p>({letter}) {_said(choice)}</p>"
    named = (question.split, question.source, question.category, question.id)
    told = " · ".join(shorten(name, 60) for name in named if name)
    margin = "" if one.margin is None else f", evidence margin {one.margin:.2f} nats"
    yield f'<p class="small">right is {_said(question.answer)}{margin} · {_said(told)}</p><ul>'
    for place in sorted({view.picture for view in trajectory.crops}) or [0]:
        boxes = [view.region for view in trajectory.crops if view.picture == place]
        whole = framed(trajectory.originals[place], boxes, 360, [GOOD if trajectory.right else BAD] * len(boxes))
        yield _figure(whole, "the picture, and what was cut out", "", None)
    if trajectory.crops:
        crop = trajectory.crops[-1]
        yield _figure(crop.pixels(trajectory.original(crop)), words_for(CROP), trajectory.answer, trajectory.right)
    else:
        yield _verdict(trajectory.answer, trajectory.right)
    for kind in (kind for kind in KINDS if kind in one.again):
        again = one.again[kind]
        yield _figure(_shown(one, kind), words_for(kind), again.answer, again.right)
    yield "</ul></article>"


def _shown(one: Audited, kind: str) -> Image.Image:
    """What the last crop's place held, or the crop itself where something else was changed."""
    view = one.trajectory.crops[-1]
    image, whole = one.trajectory.original(view), one.trajectory.whole(view)
    if kind in one.swaps:
        return one.swaps[kind](image, view, whole)
    return (whole if kind == NO_TOOLS else view).pixels(image)


def _figure(image: Image.Image, words: str, answer: str | None, right: bool | None) -> str:
    said = "" if right is None else _verdict(answer, right)
    return f'<li><img alt="" src="{picture_uri(image)}"><p class="small">{escape(words)}</p>{said}</li>'


def _verdict(answer: str | None, right: bool) -> str:
    said = "no answer" if answer is None else _said(answer)
    return f'<p class="{"right" if right else "wrong"}">{said} ({"right" if right else "wrong"})</p>'


def _said(text: str) -> str:
    return escape(printable(shorten(text, TEXT)))
