"""Phrases that exist in every language: dates, times, numbers, units and names, from Unicode's CLDR.

Babel carries CLDR's data, num2words spells numbers out; nothing is downloaded. Dates, times, numbers, units, amounts of
money and spelled-out numbers are composed, so that an unseen phrase can be told from seen ones. Names of territories
and languages are finite lists: an unseen name can only be guessed from its spelling.
"""

import datetime
import hashlib
import random
from collections.abc import Callable, Iterator
from difflib import get_close_matches
from itertools import islice
from typing import NamedTuple

from unrolled.training.data import DataError

KINDS = ("date", "time", "number", "unit", "currency", "spelled", "territory", "language")
_TRIES = 40  # draws for each phrase that is wanted, before a kind counts as exhausted
_UNITS = (
    *("length-kilometer", "length-meter", "length-mile", "mass-kilogram", "mass-gram", "volume-liter"),
    *("duration-minute", "duration-hour", "duration-day", "duration-week", "duration-month", "duration-year"),
    *("temperature-celsius", "speed-kilometer-per-hour", "digital-megabyte", "energy-kilowatt-hour"),
    *("area-square-kilometer", "power-watt"),
)
_CURRENCIES = ["EUR", "USD", "GBP", "JPY", "CHF", "SEK", "CNY", "INR", "BRL", "CAD", "AUD", "PLN", "TRY", "ZAR"]


class Phrase(NamedTuple):
    """The same in two languages."""

    kind: str
    source: str
    target: str


def phrases(source: str, target: str, count: int, seed: int = 0) -> list[Phrase]:
    """Phrases of all kinds in two locales, as evenly as the kinds have enough of them.

    Args:
        source: a locale such as "en", "de_CH", "pt_BR".
        target: another.
        count: phrases at most.
        seed: decides which.

    Raises:
        DataError: a locale that CLDR lacks, twice the same, or a missing package.
    """
    makers = _makers(source, target)
    seen: set[str] = set()
    found: list[Phrase] = []
    for kind, make in makers.items():
        generator = random.Random(f"{seed} {kind}")
        wanted = -(-count // len(KINDS))
        made = islice(_distinct(kind, make, generator, seen, wanted * _TRIES), wanted)
        found.extend(made)
    random.Random(seed).shuffle(found)
    return found[:count]


def part_of(phrase: Phrase, shares: tuple[float, float, float]) -> str:
    """The part that a phrase belongs to, by its source alone: the same phrase never stands in two parts.

    Args:
        phrase: any.
        shares: of training, validation and test; they add up to one.
    """
    digest = hashlib.sha256(phrase.source.lower().encode()).digest()
    place = int.from_bytes(digest[:8]) / 2**64
    return "train" if place < shares[0] else "validation" if place < shares[0] + shares[1] else "test"


def _distinct(
    kind: str, make: Callable[[random.Random], tuple[str, str]], generator: random.Random, seen: set[str], tries: int
) -> Iterator[Phrase]:
    for _ in range(tries):
        source, target = (_plain(side) for side in make(generator))
        if source and target and source.lower() not in seen:
            seen.add(source.lower())
            yield Phrase(kind, source, target)


def _plain(text: str) -> str:
    """One line with ordinary spaces: CLDR's no-break ones are a matter of layout."""
    return " ".join(text.split())


def _makers(source: str, target: str) -> dict[str, Callable[[random.Random], tuple[str, str]]]:
    try:
        from babel import Locale, UnknownLocaleError, dates, localedata, numbers, units
    except ModuleNotFoundError:
        raise DataError("the phrases come from Babel: pip install 'unrolled[text]'") from None

    def locale(name: str) -> Locale:
        try:
            return Locale.parse(name)
        except (UnknownLocaleError, ValueError):
            near = get_close_matches(name, localedata.locale_identifiers(), n=3)
            hint = f"; did you mean {' or '.join(near)}?" if near else ""
            raise DataError(f"locale {name!r} is not in CLDR{hint} Examples: en, de, fr, pt_BR, zh_Hant") from None

    pair = (locale(source), locale(target))
    if str(pair[0]) == str(pair[1]):
        raise DataError(f"source and target are both {source!r}; choose two locales, such as data.target=fr")

    def both(write: Callable[[Locale], str | None]) -> tuple[str, str]:
        return write(pair[0]) or "", write(pair[1]) or ""

    def date(generator: random.Random) -> tuple[str, str]:
        day = datetime.date(1900, 1, 1) + datetime.timedelta(days=generator.randrange(55_000))
        width = generator.choice(("short", "medium", "long", "full"))
        return both(lambda one: dates.format_date(day, width, locale=one))

    def time(generator: random.Random) -> tuple[str, str]:
        moment = datetime.datetime(2000, 1, 1) + datetime.timedelta(
            days=generator.randrange(9000), seconds=generator.randrange(86_400)
        )
        if generator.random() < 0.3:
            return both(lambda one: dates.format_time(moment, "medium", locale=one))
        width = generator.choice(("short", "medium"))
        return both(lambda one: dates.format_datetime(moment, width, locale=one))

    def number(generator: random.Random) -> tuple[str, str]:
        value = generator.randrange(10 ** generator.randint(1, 9)) / 10 ** generator.randint(0, 3)
        if generator.random() < 0.3:
            return both(lambda one: numbers.format_percent(value / 100, "#,##0.##%", locale=one))
        return both(lambda one: numbers.format_decimal(value, locale=one))

    def unit(generator: random.Random) -> tuple[str, str]:
        value, name = round(generator.randrange(10_000) / generator.choice((1, 1, 10)), 1), generator.choice(_UNITS)
        width = generator.choice(("long", "long", "short"))
        return both(lambda one: units.format_unit(value, name, width, locale=one))

    def currency(generator: random.Random) -> tuple[str, str]:
        value, name = generator.randrange(1_000_000) / 100, generator.choice(_CURRENCIES)
        form = generator.choice(("standard", "name"))
        return both(lambda one: numbers.format_currency(value, name, locale=one, format_type=form))

    def shared(names: str, generator: random.Random) -> tuple[str, str]:
        sides: list[dict[str, str]] = [dict(getattr(one, names)) for one in pair]
        code = generator.choice(sorted(sides[0].keys() & sides[1].keys()))
        return sides[0][code], sides[1][code]

    def territory(generator: random.Random) -> tuple[str, str]:
        return shared("territories", generator)

    def language(generator: random.Random) -> tuple[str, str]:
        return shared("languages", generator)

    makers = {
        "date": date,
        "time": time,
        "number": number,
        "unit": unit,
        "currency": currency,
        "territory": territory,
        "language": language,
    }
    spelled = _spelled(pair[0].language, pair[1].language)
    return makers if spelled is None else {**makers, "spelled": spelled}


def _spelled(source: str, target: str) -> Callable[[random.Random], tuple[str, str]] | None:
    """Numbers in words; None where num2words lacks a language."""
    try:
        from num2words import CONVERTER_CLASSES, num2words
    except ModuleNotFoundError:
        raise DataError("spelled-out numbers come from num2words: pip install 'unrolled[text]'") from None
    if source not in CONVERTER_CLASSES or target not in CONVERTER_CLASSES:
        return None

    def spelled(generator: random.Random) -> tuple[str, str]:
        value = generator.randrange(10 ** generator.randint(1, 6))
        return num2words(value, lang=source), num2words(value, lang=target)

    return spelled
