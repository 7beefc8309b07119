"""Mistakes that the person at the keyboard can mend."""


class UserError(ValueError):
    """One sentence: what is wrong, where, and what to do. The command line shows it without a traceback."""


def find_user_error(error: BaseException | None) -> UserError | None:
    """The UserError in a chain of exceptions, where libraries have wrapped it."""
    while error is not None and not isinstance(error, UserError):
        error = error.__cause__ or error.__context__
    return error
