"""Dates and times in many languages, from Unicode's CLDR, with the field of each word."""

import random
from datetime import UTC, datetime, timedelta
from typing import Any

from unrolled.training.data.base import DataError
from unrolled.training.data.rows import Row

LOCALES = (
    "cs", "da", "de", "el", "en_US", "en_GB", "es", "fi", "fr", "hu", "id", "it", "lt", "nl", "pl", "pt", "ro", "ru",
    "sv", "sw", "tr", "uk", "vi",
)  # fmt: skip
_STYLES = ("short", "medium", "long", "full")
_LETTERS = {  # https://unicode.org/reports/tr35/tr35-dates.html#Date_Field_Symbol_Table
    "era": "G", "year": "yY", "month": "ML", "day": "d", "weekday": "Eec", "period": "abB", "hour": "hHkK",
    "minute": "m", "second": "s", "zone": "zvO",
}  # fmt: skip
_FIELDS = {letter: field for field, letters in _LETTERS.items() for letter in letters}


def date_rows(count: int, seed: int) -> list[Row]:
    """Returns words and BIO tags of random dates and times in the styles of 23 locales.

    Numbers are ambiguous: 08.06.12 can begin with a day, a month or a year, and only the rest of the line tells.

    Raises:
        DataError: Babel is not installed.
    """
    try:
        from babel import Locale
        from babel.dates import DateTimeFormat, tokenize_pattern
    except ImportError:
        raise DataError("data=dates needs the package Babel: pip install 'unrolled[text]'") from None
    draw = random.Random(seed)
    locales = {name: Locale.parse(name) for name in LOCALES}
    found: list[Row] = []
    for number in range(count):
        locale = locales[draw.choice(LOCALES)]
        moment = datetime(1950, 1, 1, tzinfo=UTC) + timedelta(seconds=draw.randrange(10**9 * 5 // 2))
        date, time = (getattr(locale, f"{kind}_formats")[draw.choice(_STYLES)].pattern for kind in ("date", "time"))
        pattern = draw.choice((date, date, f"{date}, {time}", f"{time} {date}", time))
        words: list[str] = []
        tags: list[str] = []
        parts: Any = tokenize_pattern(pattern)
        for kind, value in parts:
            text = value if kind == "chars" else DateTimeFormat(moment, locale)[value[0] * value[1]]
            pieces = _words(str(text))
            field = _FIELDS.get(value[0]) if kind == "field" else None
            words += pieces
            tags += ["O" if field is None else f"{'I' if n else 'B'}-{field}" for n in range(len(pieces))]
        found.append(Row({"words": words, "tags": tags}, f"date {number}"))
    return found


def _words(text: str) -> list[str]:
    """Splits a text at spaces, and before and after every mark of punctuation."""
    return "".join(c if c.isalnum() else " " if c.isspace() else f" {c} " for c in text).split()
