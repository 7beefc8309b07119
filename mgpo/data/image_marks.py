"""Marks in a question of where its images would be, such as <image>: dialogues show these in front of the question."""

import re

from mgpo.data.base import DataError

_MARKS = re.compile(
    r"(\s{0,9})<\|?(image|img|image_pad|vision_start|vision_end)(?:[ _]?(\d{1,3}))?\|?>(\s{0,9})", re.IGNORECASE
)


def without_marks(words: str, pictures: int) -> str:
    """A question in which no mark stands for an image any more.

    About one picture they say nothing, and are taken out. Of several those in front of all text are taken out, since
    the pictures are shown in that order, and one amid the text becomes "picture 2": by its own number, or by its place
    among those without one.

    Raises:
        DataError: For a mark of an image that the question does not have, where it has several.
    """
    if "<" not in words:
        return words
    made, end, unnumbered = "", 0, 0
    for mark in _MARKS.finditer(words):
        before, kind, number, behind = mark.groups()
        made += words[end : mark.start()]
        end = mark.end()
        if pictures > 1 and not kind.lower().startswith("vision"):
            unnumbered += number is None
            place = unnumbered if number is None else int(number)
            if not 1 <= place <= pictures:
                raise DataError(f"a mark in the question stands for picture {place}; the row has {pictures} pictures")
            if made.strip():
                made += f"{before or ' '}picture {place}{behind}"
                continue
        made += "\n" if "\n" in mark[0] else " "
    return (made + words[end:]).strip()
