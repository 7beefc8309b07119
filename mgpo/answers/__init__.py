"""What a reply commits to, and whether it is right."""

from mgpo.answers.extraction import extract
from mgpo.answers.meaning import find_number, given, is_number, is_right, vote_of
from mgpo.answers.options import LETTERS, choice_letter
from mgpo.answers.wording import normalise, unwrap

__all__ = [
    "LETTERS", "choice_letter", "extract", "find_number", "given", "is_number", "is_right", "normalise", "unwrap",
    "vote_of",
]  # fmt: skip
