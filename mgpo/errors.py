"""Mistakes that the person at the keyboard can mend."""

from collections.abc import Iterator

LONGEST = 600  # characters of a message; what a person reads is at its ends


class UserError(ValueError):
    """One sentence: what is wrong, where, and what to do. The command line shows it without a traceback.

    Of a message that quotes too much the middle is left out: the cause stands first, the remedy last.
    """

    def __init__(self, message: str) -> None:
        super().__init__(shortened(message))


def shortened(text: str) -> str:
    """A text of at most `LONGEST` characters: of a longer one its beginning and its end."""
    if len(text) <= LONGEST:
        return text
    end = LONGEST // 3
    return f"{text[: LONGEST - end - 3]} … {text[-end:]}"


def first_line(error: BaseException, most: int = 200) -> str:
    """The first line of what an error says, of at most so many characters; its kind where it says nothing."""
    return next(iter(str(error).strip().splitlines()), type(error).__name__)[:most]


def find_user_error(error: BaseException | None) -> UserError | None:
    """The UserError in a chain of exceptions, where libraries have wrapped it."""
    return next((cause for cause in chain_of(error) if isinstance(cause, UserError)), None)


def chain_of(error: BaseException | None) -> Iterator[BaseException]:
    """An exception, what caused it, what caused that, and so on; `from None` ends it, as in a traceback."""
    while error is not None:
        yield error
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
