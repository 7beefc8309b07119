"""Times of day and dates, however they are written."""

import re

from mgpo.answers.numbers import in_digits

_CLOCK = re.compile(
    r"(\d{1,2})\s?(?:[:h]|uhr|\.(?=\d\d\s?(?:[ap]m|uhr)))\s?(\d{2})(?:\s?:\s?(\d{2}))?\s?(am|pm|h|uhr|o'clock)?"
)
_HOUR = re.compile(r"(\d{1,2})\s?(am|pm|uhr|o'?\s?clock)(?:\s(am|pm))?")
_PAST = re.compile(
    r"(\d{1,2}|half|quarter|a quarter)(?:\smin|\sminutes)?\s(past|to|after|before|till)\s"
    r"(\d{1,2})(?:\so'clock)?(?:\s(am|pm))?"
)
_NAMED = re.compile(r"(\d{1,2})\s([1-5]\d)(?:\s(am|pm))?")  # "twelve thirty"
_MONTHS = (  # in English, German, French, Spanish, Italian, Portuguese, Dutch; accents are gone
    "january jan januar janvier enero gennaio janeiro januari",
    "february feb februar fevrier febrero febbraio fevereiro februari", "march mar marz mars marzo marco maart",
    "april apr avril abril aprile", "may mai mayo maggio maio mei",
    "june jun juni juin junio giugno junho", "july jul juli juillet julio luglio julho",
    "august aug aout agosto augustus", "september sep sept septembre septiembre settembre setembro",
    "october oct oktober octobre octubre ottobre outubro", "november nov novembre noviembre novembro",
    "december dec dezember decembre diciembre dicembre dezembro",
)  # fmt: skip
_MONTH = {word: number for number, words in enumerate(_MONTHS, 1) for word in words.split()}
_DAY_FIRST = re.compile(
    r"(\d{1,2})(?:st|nd|rd|th|er)?(?:\s(?:of|de|di))?\s([a-z]{3,10})(?:\s(?:and|de|del))?(?:\s(\d{4}))?"
)
_MONTH_FIRST = re.compile(r"([a-z]{3,10})\s(\d{1,2})(?:st|nd|rd|th)?(?:\sand)?(?:\s(\d{4}))?")
_YEAR_FIRST = re.compile(r"(\d{4})[-/.](\d{1,2})[-/.](\d{1,2})|(\d{4})\s?年\s?(\d{1,2})\s?月\s?(\d{1,2})\s?日")
_NUMBERS = re.compile(r"(\d{1,2})([./-])(\d{1,2})\2(\d{4})")


def time_of(text: str) -> int | None:
    """Seconds since midnight of a text that is a time and nothing else: "3pm", "12:30", "half past 12". Lower case."""
    text = in_digits(text.strip())
    if text in ("noon", "midday", "midnight"):
        return 0 if text == "midnight" else 12 * 3600
    if match := _CLOCK.fullmatch(text):
        return _seconds(int(match[1]), int(match[2]), int(match[3] or 0), match[4])
    if match := _HOUR.fullmatch(text):
        return _seconds(int(match[1]), 0, 0, match[3] or match[2])
    if (match := _NAMED.fullmatch(text)) and int(match[1]) <= 12:
        return _seconds(int(match[1]), int(match[2]), 0, match[3])
    if match := _PAST.fullmatch(text):
        minutes = {"half": 30, "quarter": 15, "a quarter": 15}.get(match[1]) or int(match[1])
        hour = int(match[3])
        if match[2] in ("to", "before", "till"):
            hour, minutes = (hour - 1) or 12, 60 - minutes
        return _seconds(hour, minutes, 0, match[4])
    return None


def date_of(text: str) -> tuple[int, int, int] | None:
    """The date that a text in lower case is and nothing else: (year or 0, month, day); None for other texts.

    "12/05/2020" is none: which of the two is the month is not said. In "31/12/2020" it is, and between dots the day
    comes first.
    """
    text = text.strip()
    if match := _YEAR_FIRST.fullmatch(text):
        year, month, day = filter(None, match.groups())
        return _date(int(year), int(month), int(day))
    if match := _NUMBERS.fullmatch(text):
        first, second, year = int(match[1]), int(match[3]), int(match[4])
        if second > 12:
            return _date(year, first, second)
        return _date(year, second, first) if match[2] == "." or first > 12 or first == second else None
    text = re.sub(r"[\s,.]+", " ", text).strip()
    if (match := _DAY_FIRST.fullmatch(text)) and match[2] in _MONTH:
        return _date(int(match[3] or 0), _MONTH[match[2]], int(match[1]))
    if (match := _MONTH_FIRST.fullmatch(text)) and match[1] in _MONTH:
        return _date(int(match[3] or 0), _MONTH[match[1]], int(match[2]))
    return None


def _seconds(hour: int, minute: int, second: int, half: str | None) -> int | None:
    if hour > 24 or minute > 59 or second > 59:
        return None
    if half in ("am", "pm"):
        if not 1 <= hour <= 12:
            return None
        hour = hour % 12 + (12 if half == "pm" else 0)
    return 3600 * (hour % 24) + 60 * minute + second


def _date(year: int, month: int, day: int) -> tuple[int, int, int] | None:
    return (year, month, day) if 1 <= month <= 12 and 1 <= day <= 31 else None
